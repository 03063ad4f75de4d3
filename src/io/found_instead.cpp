#include "io/found_instead.hpp"

#include <algorithm>
#include <string_view>
#include <system_error>
#include <vector>

#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"

namespace mixtral {
namespace {

std::vector<std::filesystem::path> list(const std::filesystem::path& dir) {
  std::vector<std::filesystem::path> entries;
  std::error_code error;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end; it.increment(error))
    entries.push_back(it->path());
  std::sort(entries.begin(), entries.end());
  return entries;
}

bool is_model(const std::filesystem::path& dir) {
  std::error_code ignored;
  return std::filesystem::is_directory(dir, ignored) &&
         (may_exist(dir / "config.json") || may_exist(dir / "params.json"));
}

// Directories with models: in a model's folder of the hub's cache they are below snapshots/.
std::string models_below(const std::filesystem::path& dir) {
  std::vector<std::filesystem::path> found;
  for (const std::filesystem::path& parent : {dir / "snapshots", dir}) {
    for (const std::filesystem::path& child : list(parent)) {
      if (is_model(child)) found.push_back(child);
    }
  }
  constexpr std::size_t kShown = 3;
  std::string text;
  for (std::size_t i = 0; i < std::min(found.size(), kShown); ++i)
    text += str(i == 0 ? "" : ", ", found[i].lexically_relative(dir).string());
  return str(text, found.size() > kShown ? ", ..." : "");
}

// Files that hold weights in some other way, and what to say of them.
struct Kind {
  std::string_view begin, end, advice;
};
constexpr Kind kKinds[] = {
    {"", ".gguf", ": GGUF is not supported yet"},
    {"pytorch_model", ".bin", ", which must be converted to safetensors first"},
    {"consolidated", ".pth", ", which must be converted to safetensors first"},
    {"", ".safetensors", ""},
};

}  // namespace

std::string found_instead(const std::filesystem::path& dir) {
  const std::string below = models_below(dir);
  if (!below.empty()) return str("; give the directory of a model itself: ", below);
  const std::vector<std::filesystem::path> entries = list(dir);
  for (const Kind& kind : kKinds) {
    for (const std::filesystem::path& entry : entries) {
      const std::string name = entry.filename().string();
      if (name.starts_with(kind.begin) && name.ends_with(kind.end)) return str("; it has ", name, kind.advice);
    }
  }
  return {};
}

}  // namespace mixtral
