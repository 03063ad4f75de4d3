#include "io/shards.hpp"

#include <doctest/doctest.h>

#include "mixtral/core/error.hpp"
#include "support/error_of.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using test::error_of;
using test::names;
using test::TempDir;

namespace {

std::vector<std::string> names_of(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::string> out;
  for (const auto& path : paths) out.push_back(path.filename().string());
  return out;
}

void require_all(const std::vector<std::filesystem::path>& paths) { require_all_shards(paths); }

}  // namespace

TEST_CASE("shards are listed by their names, in order, numbered ones apart") {
  const TempDir dir;
  CHECK(list_shards(dir.path(), "model").empty());
  for (const char* name :
       {"model-00002-of-00002.safetensors", "model-00001-of-00002.safetensors", "model.safetensors",
        "model-x-00001-of-00002.safetensors", "model-00001-of-00002.safetensors.part",
        "model-0001x-of-00002.safetensors", "model--of-00002.safetensors", "model-00001-of-.safetensors",
        "model-00000-of-00002.safetensors", "model-0000001-of-0000002.safetensors", "-of-00002.safetensors",
        "amodel-1-of-2.safetensors"})
    test::write_text(dir / name, "");
  CHECK(list_shards(dir.path(), "model").size() == 9);
  CHECK(names_of(list_numbered_shards(dir.path(), "model-")) ==
        std::vector<std::string>{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"});
  const Error error = error_of([&] { list_shards(dir / "nowhere", "model"); });
  CHECK(error.code() == ErrorCode::kIo);
  CHECK(names(error, "nowhere: cannot list: No such file"));
}

TEST_CASE("numbers promise files, and the first that is missing is named") {
  CHECK_NOTHROW(require_all({}));
  CHECK_NOTHROW(require_all({"d/consolidated.00.safetensors", "d/consolidated.02.safetensors"}));
  CHECK_NOTHROW(require_all({"d/model-00002-of-00002.safetensors", "d/model-00001-of-00002.safetensors"}));
  const struct {
    std::vector<std::filesystem::path> paths;
    ErrorCode code;
    const char* message;
  } cases[] = {
      {{"d/m-00001-of-00003.safetensors", "d/m-00003-of-00003.safetensors"},
       ErrorCode::kNotFound,
       "d/m-00002-of-00003.safetensors: no such file, but m-00001-of-00003.safetensors is one of 3"},
      {{"d/m-00002-of-00002.safetensors"},
       ErrorCode::kNotFound,
       "d/m-00001-of-00002.safetensors: no such file, but m-00002-of-00002.safetensors is one of 2"},
      {{"d/m-9-of-12.safetensors"}, ErrorCode::kNotFound, "d/m-1-of-12.safetensors: no such file"},
      {{"d/m-00001-of-00002.safetensors", "d/m-00001-of-00003.safetensors"},
       ErrorCode::kBadFormat,
       "d: m-00001-of-00002.safetensors is one of 2 files, m-00001-of-00003.safetensors one of 3"},
  };
  for (const auto& c : cases) {
    const Error error = error_of([&] { require_all(c.paths); });
    CHECK(error.code() == c.code);
    CHECK(names(error, c.message));
  }
}
