#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cmath>

#include "support/golden.hpp"
#include "support/program.hpp"

using namespace mixtral;
using nlohmann::json;
using test::Answer;
using test::contains;
using test::list_of;
using test::quoted;
using test::run_program;

namespace {

// Each tensor that eval writes, as the golden case has it.
void check_trace(const SafetensorsFile& got, const SafetensorsFile& want, const json& manifest) {
  std::size_t expected = 0;
  for (const SafetensorsEntry& entry : want.entries()) {
    CAPTURE(entry.name);
    const std::string kind = entry.name.substr(entry.name.rfind('.') + 1);
    if (kind == "attn_out" || kind.starts_with("greedy_")) continue;  // not part of an evaluation
    ++expected;
    const SafetensorsEntry& tensor = got.at(entry.name);
    CHECK(tensor.dtype == entry.dtype);
    CHECK(tensor.shape == entry.shape);
    if (entry.dtype == DType::kI32 || kind == "embed") {
      CHECK(std::equal(tensor.data.begin(), tensor.data.end(), entry.data.begin(), entry.data.end()));
      continue;
    }
    const std::string budget = kind == "output" || kind == "final_norm" ? "layer_output" : kind;
    CHECK(test::excess(test::elements<float>(got, entry.name), test::elements<float>(want, entry.name),
                       test::tolerance(manifest, budget)) == 0);
  }
  CHECK(got.entries().size() == expected);
}

}  // namespace

TEST_CASE("eval --ids prints the golden figures and writes the golden tensors") {
  const auto manifest = test::read_json(test::golden_dir() / "manifest.json");
  for (const auto& entry : manifest.at("cases")) {
    if (entry.at("kind") != "model") continue;
    const SafetensorsFile want(test::golden_dir() / entry.at("file").get<std::string>());
    CAPTURE(want.name());
    const test::TempDir dir;
    const Answer answer = run_program(
        "eval --json --kv f32 --model " + quoted(test::golden_dir() / entry.at("model").get<std::string>()) +
        " --ids " + list_of(test::elements<std::int32_t>(want, "ids")) + " --out " + quoted(dir / "out.safetensors"));
    CHECK(answer.status == 0);
    CHECK(answer.err.empty());
    check_trace(SafetensorsFile(dir / "out.safetensors"), want, manifest);
    const json got = json::parse(answer.out);
    CHECK(got.at("seq_len") == entry.at("seq_len"));
    const auto close = [&](const char* key) {
      const test::Tolerance t = test::tolerance(manifest, key);
      const double value = entry.at(key).get<double>();
      return std::abs(got.at(key).get<double>() - value) <= t.atol + t.rtol * std::abs(value);
    };
    CHECK(close("load_balancing_loss"));
    CHECK(got.at("expert_usage").size() == 2);
    if (entry.at("seq_len") == 1) {
      CHECK(got.at("cross_entropy").is_null());
      CHECK(got.at("perplexity").is_null());
    } else {
      CHECK(close("cross_entropy"));
      CHECK(got.at("perplexity").get<double>() == doctest::Approx(std::exp(got.at("cross_entropy").get<double>())));
    }
  }
}

TEST_CASE("eval --text gives the reference's cross-entropy and expert usage on a held-out text") {
  const auto want = test::read_json(test::golden_dir() / "tiny/reference.json").at("heldout").at("en");
  const auto file = test::golden_dir() / "tiny" / want.at("file").get<std::string>();
  const Answer answer = run_program("eval --json --kv f32 --text " + quoted(file));
  CHECK(answer.status == 0);
  const json got = json::parse(answer.out);
  CHECK(got.at("targets") == want.at("tokens"));
  CHECK(got.at("cross_entropy").get<double>() == doctest::Approx(want.at("cross_entropy").get<double>()).epsilon(1e-5));
  CHECK(got.at("expert_usage") == want.at("experts_used"));
}

TEST_CASE("eval --text reads pipes and standard input as it reads files") {
  const test::TempDir dir;
  const std::string file = quoted(dir / "text"), pipe = quoted(dir / "pipe");
  test::write_text(dir / "text", "RETURN VALUE\nOn success, zero is returned.\n");
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  const Answer want = run_program("eval --text " + file);
  CHECK(want.status == 0);
  for (const std::string& source :
       {"- <" + file, "/dev/stdin <" + file, pipe + " & cat " + file + " >" + pipe + "; wait"}) {
    CAPTURE(source);
    CHECK(run_program("eval --text " + source).out == want.out);
  }
  CHECK(contains(run_program("eval --text -").err, "stdin: is empty"));
}

TEST_CASE("eval without --json prints the same figures for people") {
  const Answer answer = run_program("eval --ids 1,2,3");
  CHECK(answer.status == 0);
  for (const char* part : {"cross-entropy", "perplexity", "load-balancing loss", "choices of each expert"}) {
    CHECK(contains(answer.out, part));
  }
  CHECK(contains(run_program("eval --ids 1").out, "no token to predict"));
}

TEST_CASE("eval says what it cannot read or write") {
  const test::TempDir dir;
  test::write_text(dir / "empty", "");
  const std::string model_a = " --model " + quoted(test::golden_dir() / "models/A");
  const struct {
    std::string arguments, message;
  } cases[] = {
      {"--text /no/such/text", "/no/such/text"},
      {"--text ''", "cannot open"},
      {"--ids 1,2 --out ''", "names no file"},
      {"--text " + quoted(dir / "empty"), "empty"},
      {"--text " + quoted(dir / "empty") + model_a, "models/A: no tokenizer file to read text with"},
      {"--ids 1,4096", "4096"},
      {"--ids 1,2 --out /no/such/dir/file", "/no/such/dir/file"},
      {"--out " + quoted(dir / "out") + " --text " + quoted(test::golden_dir() / "tiny/heldout/en.txt"), "--out"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.arguments);
    const Answer answer = run_program("eval " + c.arguments);
    CHECK(answer.status == 1);
    CHECK_MESSAGE(contains(answer.err, c.message), answer.err);
    CHECK(answer.out.empty());
  }
  CHECK_FALSE(std::filesystem::exists(dir / "out"));
}
