#include "io/found_instead.hpp"

#include <doctest/doctest.h>

#include "mixtral/core/error.hpp"
#include "mixtral/io/checkpoint.hpp"
#include "mixtral/io/huggingface.hpp"
#include "support/checkpoint_files.hpp"
#include "support/error_of.hpp"
#include "support/golden.hpp"

using namespace mixtral;
using test::error_of;
using test::Files;
using test::names;
using test::TempDir;

TEST_CASE("a directory without anything like a model has nothing to tell") {
  const TempDir dir;
  CHECK(found_instead(dir.path()).empty());
  CHECK(found_instead(dir / "nowhere").empty());
  for (const char* name : {"training_args.bin", "optimizer.pt", "README.md"}) test::write_text(dir / name, "x");
  CHECK(found_instead(dir.path()).empty());
}

TEST_CASE("the folder of a model in the hub's cache, and one above a model, name the directory to give") {
  const TempDir dir;
  const Files model = test::read_dir(test::golden_dir() / "malformed_hf/_base");
  const auto error = [&] { return error_of([&] { load_checkpoint(dir.path()); }); };
  std::filesystem::create_directories(dir / "snapshots/0123");
  CHECK(names(error(), "neither config.json nor params.json exists"));
  CHECK(std::string(error().what()).find("0123") == std::string::npos);
  test::write_dir(dir / "snapshots/0123", model);
  CHECK(names(error(), "; give the directory of a model itself: snapshots/0123"));
  for (const std::string other : {"a", "b", "c"}) {
    std::filesystem::create_directory(dir / other);
    test::write_dir(dir / other, model);
  }
  CHECK(names(error(), "; give the directory of a model itself: snapshots/0123, a, b, ..."));
}

TEST_CASE("files of another kind in the place of the weights are named, or what they are") {
  const std::string lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4221679088\n";
  const struct {
    std::string file, contents;
    ErrorCode code;
    std::string message;
  } cases[] = {
      {"pytorch_model.bin", "x", ErrorCode::kNotFound, "; it has pytorch_model.bin, which must be converted"},
      {"pytorch_model-00001-of-00019.bin", "x", ErrorCode::kNotFound, "; it has pytorch_model-00001-of-00019.bin"},
      {"mixtral.gguf", "x", ErrorCode::kNotFound, "; it has mixtral.gguf: GGUF is not supported yet"},
      {"adapter_model.safetensors", "x", ErrorCode::kNotFound, "exists; it has adapter_model.safetensors"},
      {"model.safetensors", lfs, ErrorCode::kBadFormat, "model.safetensors: a Git LFS pointer, not the file itself; "},
      {"model.safetensors", "GGUF\3\1\1\1", ErrorCode::kUnsupported,
       "model.safetensors: no safetensors file: it looks like a GGUF"},
      {"model.safetensors", "PK\3\4\1\1\1\1", ErrorCode::kUnsupported, "it looks like a zip archive, as PyTorch"},
      {"model.safetensors", "<!DOCTYPE html>", ErrorCode::kBadFormat, "it looks like a web page"},
      {"model.safetensors", "", ErrorCode::kBadFormat, "model.safetensors: is empty"},
      {"config.json", lfs, ErrorCode::kBadFormat, "config.json: a Git LFS pointer"},
      {"config.json", "", ErrorCode::kBadFormat, "config.json: is empty"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.file);
    const TempDir dir;
    Files files = test::read_dir(test::golden_dir() / "malformed_hf/_base");
    files.erase("model.safetensors");
    files[c.file] = c.contents;
    test::write_dir(dir.path(), files);
    const Error error = error_of([&] { load_huggingface(dir.path()); });
    CHECK(error.code() == c.code);
    CHECK(names(error, c.message));
  }
}
