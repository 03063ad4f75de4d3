#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "mixtral/core/file.hpp"
#include "mixtral/io/safetensors.hpp"
#include "support/checkpoint_files.hpp"
#include "support/golden.hpp"
#include "support/program.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using test::Answer;
using test::contains;
using test::quoted;
using test::run_program;

TEST_CASE("inspect --check says of sound weights that they are, with the rate of reading") {
  const Answer answer = run_program("inspect --check");
  CHECK(answer.status == 0);
  CHECK(contains(answer.out, "check\n  all weights are sound, "));
  CHECK(contains(answer.out, " GB/s\n"));
  CHECK(!contains(run_program("inspect").out, "sound"));
}

TEST_CASE("inspect --check counts the numbers of a tensor that are not finite, and is exit code 1") {
  const test::TempDir dir;
  test::Files files = test::read_dir(test::golden_dir() / "malformed_hf/_base");
  std::string& model = files["model.safetensors"];
  const SafetensorsFile file(std::as_bytes(std::span(model)), "base");
  const std::byte* row = file.at("model.layers.0.self_attn.q_proj.weight").data.data() + 3 * 8 * sizeof(float);
  const std::size_t at = static_cast<std::size_t>(reinterpret_cast<const char*>(row) - model.data());
  const float infinity = std::numeric_limits<float>::infinity();
  for (const std::size_t i : {5, 6}) std::memcpy(model.data() + at + i * sizeof infinity, &infinity, sizeof infinity);
  test::write_dir(dir.path(), files);
  const std::string command = "inspect --check --model " + quoted(dir.path());
  const Answer text = run_program(command);
  CHECK(text.status == 1);
  CHECK(contains(text.out,
                 "  layers.0.wq: 2 numbers are not finite, the first at [3, 5]: inf\n  1 tensor is not sound, "));
  CHECK(contains(text.err, ": 1 tensor is not sound"));
  const Answer answer = run_program(command + " --json");
  CHECK(answer.status == 1);
  const nlohmann::json check = nlohmann::json::parse(answer.out).at("check");
  CHECK(check.at("wrong").at(0).at("name") == "layers.0.wq");
  CHECK(check.at("bytes") == 2720);
  CHECK(run_program("inspect --model " + quoted(dir.path())).status == 0);
}

TEST_CASE("inspect shows how RoPE is scaled, where it is") {
  const test::TempDir dir;
  test::Files files = test::read_dir(test::golden_dir() / "malformed_hf/_base");
  nlohmann::json config = nlohmann::json::parse(files["config.json"]);
  const std::string command = "inspect --model " + quoted(dir.path());
  const auto inspect = [&](const std::string& scaling, const std::string& options = "") {
    config["rope_scaling"] = nlohmann::json::parse(scaling);
    files["config.json"] = config.dump();
    test::write_dir(dir.path(), files);
    return run_program(command + options).out;
  };
  CHECK(!contains(inspect("null"), "rope_scaling"));
  CHECK(contains(inspect(R"({"type":"linear","factor":2.5})"),
                 R"(  rope_scaling        {"type":"linear","factor":2.5,"attention_factor":1})"));
  const std::string yarn = R"({"type":"yarn","factor":4,"original_max_position_embeddings":16,"attention_factor":1.1})";
  CHECK(nlohmann::json::parse(inspect(yarn, " --json")).at("config").at("rope_scaling") ==
        nlohmann::json::parse(R"({"type":"yarn","factor":4,"attention_factor":1.1,"original_max_positions":16,
                                  "beta_fast":32,"beta_slow":1,"truncate":true})"));
}

TEST_CASE("inspect --check compares the checksums of a packed file") {
  const test::TempDir dir;
  REQUIRE(run_program("pack " + quoted(MIXTRAL_TINY_DIR) + " " + quoted(dir / "m") + " --weights p4").status == 0);
  CHECK(contains(run_program("inspect --check --model " + quoted(dir / "m")).out, "all weights are sound"));
  std::string bytes = read_file(dir / "m", Index{1} << 30);
  const SafetensorsFile file(std::as_bytes(std::span(bytes)), "m");
  const std::byte* byte = file.at("layers.2.experts.3").data.data() + 1000;
  char& flipped = bytes[static_cast<std::size_t>(reinterpret_cast<const char*>(byte) - bytes.data())];
  flipped = static_cast<char>(flipped ^ 1);
  test::write_text(dir / "m", bytes);
  const Answer answer = run_program("inspect --check --model " + quoted(dir / "m"));
  CHECK(answer.status == 1);
  CHECK(contains(answer.out, "layers.2.experts.3: the checksum is not that of the bytes\n"));
}

TEST_CASE("inspect shows what of the configuration is passed over") {
  const test::TempDir dir;
  test::Files files = test::read_dir(test::golden_dir() / "malformed_hf/_base");
  files["config.json"].insert(1, R"("quantization_config":{"quant_method":"awq"},)");
  test::write_dir(dir.path(), files);
  const Answer answer = run_program("inspect --model " + quoted(dir.path()));
  CHECK(answer.status == 0);
  CHECK(contains(answer.out, "notes\n  quantization_config: quant_method is \"awq\" is ignored"));
}

TEST_CASE("inspect states the working memory of longer steps") {
  const auto working = [](const std::string& options) {
    return nlohmann::json::parse(run_program("inspect --json" + options).out).at("memory").at("working_bytes");
  };
  const auto usual = working("").get<Index>();
  CHECK(working(" --chunk 512") == usual);
  CHECK(working(" --chunk 2048").get<Index>() > 2 * usual);
  CHECK(run_program("inspect --chunk 0").status == 2);
}

TEST_CASE("inspect --without-head counts what embeddings take") {
  const auto tell = [](const std::string& options) {
    return nlohmann::json::parse(run_program("inspect --json" + options).out);
  };
  for (const std::string& model :
       {std::string(MIXTRAL_TINY_DIR), std::string(MIXTRAL_GOLDEN_DIR) + "/gguf/models/K_q4_k_m.gguf"}) {
    CAPTURE(model);
    const auto whole = tell(" --model " + quoted(model)), headless = tell(" --without-head --model " + quoted(model));
    CHECK(whole.at("config").at("has_head") == true);
    CHECK(headless.at("config").at("has_head") == false);
    CHECK(headless.at("n_tensors").get<int>() == whole.at("n_tensors").get<int>() - 1);
    const auto& groups = whole.at("memory").at("weights");
    REQUIRE(groups.back().at("group") == "head");
    CHECK(headless.at("memory").at("weights").back().at("group") != "head");
    CHECK(headless.at("memory").at("weights_bytes").get<Index>() ==
          whole.at("memory").at("weights_bytes").get<Index>() - groups.back().at("bytes").get<Index>());
    CHECK(headless.at("parameters").at("total").get<Index>() ==
          whole.at("parameters").at("total").get<Index>() -
              whole.at("config").at("vocab_size").get<Index>() * whole.at("config").at("dim").get<Index>());
  }
  CHECK(contains(run_program("inspect --without-head --check").out, "all weights are sound"));
}
