// Golden checkpoints, converted: their names and the order of their q and k rows.
#include "mixtral/io/consolidated.hpp"

#include <doctest/doctest.h>

#include <string>

#include "mixtral/core/error.hpp"
#include "mixtral/core/executor.hpp"
#include "mixtral/io/huggingface.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/evaluator.hpp"
#include "support/consolidated_files.hpp"
#include "support/error_of.hpp"
#include "support/golden.hpp"

using namespace mixtral;
using test::consolidated;
using test::error_of;
using test::Files;
using test::names;
using test::TempDir;

namespace {

const std::filesystem::path kGolden = test::golden_dir();

// Loads a directory with these files. The mapping outlives the directory.
Checkpoint load(const Files& files) {
  const TempDir dir;
  test::write_dir(dir.path(), files);
  return load_consolidated(dir.path());
}

Files base_files() { return consolidated(test::read_dir(kGolden / "malformed_hf/_base")); }

SequenceTrace trace_of(const Model& model, std::span<const TokenId> ids) {
  const KernelTable table = make_table(best_isa());
  SerialExecutor executor;
  SequenceTrace trace;
  Evaluator(LoadedModel(model, table, executor), DType::kF32).run(ids, {}, &trace);
  return trace;
}

// The base's tensors, changed by `change`.
template <class F>
Files with_changed(F change) {
  Files files = base_files();
  const std::string original = files["consolidated.safetensors"];
  const SafetensorsFile source(std::as_bytes(std::span(original)), "original");
  std::vector<SafetensorsEntry> tensors = source.entries();
  change(tensors);
  files["consolidated.safetensors"] = test::safetensors_text(tensors);
  return files;
}

}  // namespace

TEST_CASE("golden models, converted, choose the golden experts and give the golden logits") {
  const auto manifest = test::read_json(kGolden / "manifest.json");
  const test::Tolerance tolerance = test::tolerance(manifest, "logits");
  int cases = 0;
  for (const auto& entry : manifest.at("cases")) {
    if (entry.at("kind") != "model") continue;
    CAPTURE(entry.at("name").get<std::string>());
    const std::filesystem::path dir = kGolden / entry.at("model").get<std::string>();
    const SafetensorsFile want(kGolden / entry.at("file").get<std::string>());
    const auto ids = test::elements<std::int32_t>(want, "ids");
    const Checkpoint converted = load(consolidated(test::read_dir(dir)));
    CHECK(converted.model.config.rope_pairing == RopePairing::kInterleaved);
    const SequenceTrace got = trace_of(converted.model, ids), original = trace_of(load_huggingface(dir).model, ids);
    for (std::size_t l = 0; l < got.layers.size(); ++l) {
      CHECK(got.layers[l].expert_ids == test::elements<std::int32_t>(want, str("layer.", l, ".expert_ids")));
      CHECK(got.layers[l].expert_ids == original.layers[l].expert_ids);
    }
    CHECK(test::excess(got.logits, test::elements<float>(want, "logits"), tolerance) == 0);
    // Not the same bits: attention adds the products of q and k in the order of their rows.
    CHECK(test::excess(got.logits, original.logits, tolerance) == 0);
    if (ids.size() == 1) CHECK(got.logits == original.logits);  // where one key gets all the attention
    ++cases;
  }
  CHECK(cases == 8);
}

TEST_CASE("q and k rows left in the other order give other logits") {
  const auto manifest = test::read_json(kGolden / "manifest.json");
  for (const std::string name : {"A", "B"}) {
    CAPTURE(name);
    const SafetensorsFile want(kGolden / "cases" / (name + "_T33.safetensors"));
    const auto ids = test::elements<std::int32_t>(want, "ids");
    const Checkpoint wrong = load(consolidated(test::read_dir(kGolden / "models" / name), /*interleaved=*/false));
    CHECK(test::excess(trace_of(wrong.model, ids).logits, test::elements<float>(want, "logits"),
                       test::tolerance(manifest, "logits")) > 100);
  }
}

TEST_CASE("rows are taken in the order of the file, and the tensors are listed by the names of the file") {
  const Checkpoint hf = load_huggingface(kGolden / "models/A");
  const Checkpoint got = load(consolidated(test::read_dir(kGolden / "models/A"), /*interleaved=*/false));
  test::check_same_values(got.model, hf.model);
  CHECK(got.tensors.size() == hf.tensors.size());
  CHECK(got.tensors.front().name == "layers.0.attention.wk.weight");
  CHECK(got.tensors.back().name == "tok_embeddings.weight");
  CHECK(got.tensors.back().file == "consolidated.safetensors");
}

TEST_CASE("shards with an index, numbered shards without one and a single file give the same weights") {
  const Checkpoint base = load(base_files());
  Files shards = test::sharded(base_files(), 3, "consolidated");
  test::check_same_values(load(shards).model, base.model);
  shards.erase("consolidated.safetensors.index.json");
  test::check_same_values(load(shards).model, base.model);
  Files numbered{{"params.json", shards.at("params.json")}};
  for (const std::string i : {"1", "2", "3"})
    numbered["consolidated.0" + i + ".safetensors"] = shards.at("consolidated-0000" + i + "-of-00003.safetensors");
  test::check_same_values(load(numbered).model, base.model);
}

TEST_CASE("a tensor that two shards have is refused with both files") {
  Files files = base_files();
  files["consolidated.00.safetensors"] = files["consolidated.01.safetensors"] = files["consolidated.safetensors"];
  CHECK_NOTHROW(load(files));  // the single file wins
  files.erase("consolidated.safetensors");
  const Error error = error_of([&] { load(files); });
  CHECK(error.code() == ErrorCode::kBadFormat);
  CHECK(names(error, "consolidated.00.safetensors: tensor \"layers.0.attention.wk.weight\" is also in "));
  CHECK(names(error, "consolidated.01.safetensors"));
}

TEST_CASE("a shard that is missing, of the index or of the numbers, is noticed") {
  Files files = test::sharded(base_files(), 3, "consolidated");
  files.erase("consolidated-00002-of-00003.safetensors");
  CHECK(names(error_of([&] { load(files); }), "consolidated-00002-of-00003.safetensors: cannot open"));
  files.erase("consolidated.safetensors.index.json");
  const Error error = error_of([&] { load(files); });
  CHECK(error.code() == ErrorCode::kNotFound);
  CHECK(names(error, "consolidated-00002-of-00003.safetensors: no such file, but "));
}

TEST_CASE("a directory with params.json and no consolidated weights says so") {
  Files files = base_files();
  files.erase("consolidated.safetensors");
  const Error error = error_of([&] { load(files); });
  CHECK(error.code() == ErrorCode::kNotFound);
  CHECK(names(error, "no consolidated*.safetensors exists"));
  files["consolidated.00.pth"] = "x";
  CHECK(names(error_of([&] { load(files); }), "; it has consolidated.00.pth, which must be converted"));
}

TEST_CASE("a router of a consolidated checkpoint that has a NaN is refused with layer and expert") {
  const Error error = error_of([&] {
    load(with_changed([](auto& tensors) {
      static std::vector<std::byte> bytes;
      for (auto& t : tensors) {
        if (t.name != "layers.0.feed_forward.gate.weight") continue;
        bytes.assign(t.data.begin(), t.data.end());
        std::fill_n(bytes.begin() + 8 * 4, 4, std::byte{0xff});
        t.data = bytes;
      }
    }));
  });
  CHECK(error.code() == ErrorCode::kBadFormat);
  CHECK(names(error, ": layers.0.gate: expert 1, element 0 is nan"));
}

TEST_CASE("tensors that are missing, misshapen or without a place are refused by name") {
  const std::vector<std::byte> zeros(32);
  Error error = error_of([&] {
    load(with_changed([&](auto& tensors) {
      tensors.push_back({"layers.0.attention.wq.lora_A.weight", DType::kF32, {8}, zeros});
    }));
  });
  CHECK(error.code() == ErrorCode::kUnsupported);
  CHECK(names(error, "tensor \"layers.0.attention.wq.lora_A.weight\": the model of params.json has no place for it"));

  error = error_of([&] {
    load(with_changed([](auto& tensors) {
      for (auto& t : tensors) {
        if (t.name == "layers.0.feed_forward.gate.weight") t.name = "layers.0.block_sparse_moe.gate.weight";
      }
    }));
  });
  CHECK(error.code() == ErrorCode::kBadFormat);
  CHECK(names(error, "no tensor layers.0.feed_forward.gate.weight"));

  error = error_of([&] {
    load(with_changed([](auto& tensors) {
      for (auto& t : tensors) {
        if (t.name == "output.weight") t.shape = {8, 16};
      }
    }));
  });
  CHECK(error.code() == ErrorCode::kBadFormat);
  CHECK(names(error, "tensor \"output.weight\": expected [16, 8], file has [8, 16]"));
}

TEST_CASE("params.json may not claim more parameters than the files can hold") {
  Files files = base_files();
  nlohmann::json params = nlohmann::json::parse(files["params.json"]);
  params["vocab_size"] = 1 << 28;
  files["params.json"] = params.dump();
  const Error error = error_of([&] { load(files); });
  CHECK(error.code() == ErrorCode::kBadFormat);
  CHECK(names(error, "params.json: claims "));
  CHECK(names(error, "the tensors hold 2720 bytes"));
}
