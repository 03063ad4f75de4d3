#include "mixtral/io/checkpoint.hpp"

#include <doctest/doctest.h>

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
