#include "mixtral/io/checkpoint.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "mixtral/core/error.hpp"
#include "mixtral/core/thread_executor.hpp"
#include "support/consolidated_files.hpp"
#include "support/error_of.hpp"
#include "support/golden.hpp"

using namespace mixtral;
using test::error_of;
using test::Files;
using test::names;

namespace {

const Files kHuggingFace = test::read_dir(test::golden_dir() / "malformed_hf/_base");
const Files kConsolidated = test::consolidated(kHuggingFace);

Files together(Files a, const Files& b) {
  a.insert(b.begin(), b.end());
  return a;
}

// Of a model's weights file: the tensors, changed.
template <class F>
Files with_changed(Files files, const std::string& file, F change) {
  const std::string original = files.at(file);
  const SafetensorsFile source(std::as_bytes(std::span(original)), file);
  std::vector<SafetensorsEntry> tensors = source.entries();
  change(tensors);
  files[file] = test::safetensors_text(tensors);
  return files;
}

Checkpoint load(const Files& files, const LoadOptions& options) {
  const test::TempDir dir;
  test::write_dir(dir.path(), files);
  return load_checkpoint(dir.path(), options);
}

RopePairing pairing_of(const Files& files) {
  const test::TempDir dir;
  test::write_dir(dir.path(), files);
  return load_checkpoint(dir.path()).model.config.rope_pairing;
}

}  // namespace

TEST_CASE("a checkpoint is loaded by the configuration file that is there") {
  CHECK(pairing_of(kHuggingFace) == RopePairing::kHalfSplit);
  CHECK(pairing_of(kConsolidated) == RopePairing::kInterleaved);
}

TEST_CASE("of two formats in one directory Hugging Face's counts, unless only the other has weights") {
  const Files both = together(kHuggingFace, kConsolidated);
  CHECK(pairing_of(both) == RopePairing::kHalfSplit);
  Files sharded = together(test::sharded(kHuggingFace, 2), kConsolidated);
  CHECK(pairing_of(sharded) == RopePairing::kHalfSplit);
  Files config_only = both;
  config_only.erase("model.safetensors");
  CHECK(pairing_of(config_only) == RopePairing::kInterleaved);
}

TEST_CASE("a directory of no known format is not found, and both files are named") {
  for (const Files& files : {Files{}, Files{{"model.safetensors", ""}}}) {
    const Error error = error_of([&] { pairing_of(files); });
    CHECK(error.code() == ErrorCode::kNotFound);
    CHECK(names(error, "neither config.json nor params.json exists"));
  }
}

TEST_CASE("a path with nothing at it, or no model, is told by what is there") {
  CHECK(names(error_of([] { load_checkpoint("/no/such/model"); }), "/no/such/model: no such file or directory"));
  CHECK(error_of([] { load_checkpoint("/no/such/model"); }).code() == ErrorCode::kNotFound);
  CHECK(names(error_of([] { load_checkpoint("/dev/null"); }), "/dev/null: neither a directory nor a regular file"));
  const test::TempDir dir;
  test::write_dir(dir.path(), kHuggingFace);
  const auto message = [&](const std::string& file, const std::string& contents) {
    test::write_text(dir / file, contents);
    return error_of([&] { load_checkpoint(dir / file); });
  };
  CHECK(names(message("x.gguf", "GGUF" + std::string(20, '\1')), "x.gguf: GGUF version 16843009, expected 2 or 3"));
  CHECK(names(message("config.json", kHuggingFace.at("config.json")), "it looks like JSON; a model of several files"));
  CHECK(names(message("model.safetensors", kHuggingFace.at("model.safetensors")),
              "no packed file: __metadata__ has no "
              "mixtral.format; other safetensors files are opened by their directory"));
  CHECK(names(message("empty", ""), "empty: is empty"));
}

TEST_CASE("numbered files without an index are weights of Hugging Face's format") {
  Files files = together(test::sharded(kHuggingFace, 2), kConsolidated);
  files.erase("model.safetensors.index.json");
  CHECK(pairing_of(files) == RopePairing::kHalfSplit);
}

TEST_CASE("a config.json that cannot be used is not passed over for params.json") {
  Files files = together(kHuggingFace, kConsolidated);
  files["config.json"] = "{";
  CHECK(names(error_of([&] { pairing_of(files); }), "config.json: parse error"));
}

TEST_CASE("resident weights are those of the files, whoever copies them") {
  ThreadExecutor workers(2);
  for (const Files& files : {kHuggingFace, kConsolidated}) {
    const test::TempDir dir;
    test::write_dir(dir.path(), files);
    const Checkpoint want = load_checkpoint(dir.path());
    for (Executor* executor : {static_cast<Executor*>(nullptr), static_cast<Executor*>(&workers)}) {
      const Checkpoint got = load_checkpoint(dir.path(), {.resident = true, .executor = executor});
      test::check_same_values(got.model, want.model);
      CHECK(got.tensors.size() == want.tensors.size());
      CHECK(got.model.weights.embedding.data != want.model.weights.embedding.data);
    }
  }
}

TEST_CASE("a head may be missing if none is asked for, and one that is there is then as if it were not") {
  const struct {
    Files files;
    std::string file, head;
  } cases[] = {{kHuggingFace, "model.safetensors", "lm_head.weight"},
               {kConsolidated, "consolidated.safetensors", "output.weight"}};
  for (const auto& c : cases) {
    CAPTURE(c.head);
    const auto is_head = [&](const auto& tensor) { return tensor.name == c.head; };
    const Checkpoint whole = load(c.files, {});
    REQUIRE(whole.model.config.has_head);
    const Files headless = with_changed(c.files, c.file, [&](auto& tensors) { std::erase_if(tensors, is_head); });
    const Error error = error_of([&] { load(headless, {}); });
    CHECK(error.code() == ErrorCode::kBadFormat);
    CHECK(names(error, "no tensor " + c.head + ": without one it opens for embeddings alone (Head::kNone"));
    // Nobody looks at a head that is left out.
    const Files broken = with_changed(c.files, c.file, [&](auto& tensors) {
      SafetensorsEntry& head = *std::find_if(tensors.begin(), tensors.end(), is_head);
      head.dtype = DType::kU8;
      head.shape = {static_cast<Index>(head.data.size())};
    });
    CHECK(error_of([&] { load(broken, {}); }).code() == ErrorCode::kUnsupported);
    for (const Files& files : {c.files, headless, broken}) {
      for (const bool resident : {false, true}) {
        const Checkpoint got = load(files, {.resident = resident, .head = Head::kNone});
        CHECK_FALSE(got.model.config.has_head);
        CHECK(got.model.weights.head.data == nullptr);
        CHECK_NOTHROW(validate(got.model.weights, got.model.config));
        test::check_same_values(whole.model, got.model);
        CHECK(weight_bytes(got.model) == weight_bytes(whole.model) - whole.model.weights.head.bytes());
        CHECK(got.tensors.size() == whole.tensors.size() - 1);
        CHECK(std::none_of(got.tensors.begin(), got.tensors.end(), is_head));
      }
    }
  }
}
