// Which files are there by their names, and which are missing by their numbers.
#include "io/shards.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <string>
#include <system_error>

#include "mixtral/core/error.hpp"
#include "mixtral/core/types.hpp"

namespace mixtral {
namespace {

// "model-", 1 and 3 of "model-00001-of-00003.safetensors".
struct ShardName {
  std::string_view prefix;
  Index number = 0, count = 0;
  std::size_t digits = 0;
};

std::optional<ShardName> parse_shard_name(std::string_view name) {
  constexpr std::string_view kEnd = ".safetensors", kOf = "-of-";
  if (!name.ends_with(kEnd)) return std::nullopt;
  name.remove_suffix(kEnd.size());
  const std::size_t of = name.rfind(kOf), dash = name.rfind('-', of == name.npos ? 0 : of - 1);
  if (of == name.npos || dash == name.npos || dash >= of) return std::nullopt;
  ShardName out{name.substr(0, dash + 1), 0, 0, of - dash - 1};
  const auto read = [](std::string_view digits, Index& number) {
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    return error == std::errc() && end == digits.data() + digits.size() && digits.size() <= 6 && number > 0;
  };
  const bool numbers = read(name.substr(dash + 1, out.digits), out.number) && read(name.substr(of + 4), out.count);
  return numbers ? std::optional(out) : std::nullopt;
}

std::string shard_file_name(const ShardName& like, Index number) {
  const auto padded = [&](Index n) {
    const std::string digits = str(n);
    return std::string(like.digits - std::min(like.digits, digits.size()), '0') + digits;
  };
  return str(like.prefix, padded(number), "-of-", padded(like.count), ".safetensors");
}

}  // namespace

std::vector<std::filesystem::path> list_shards(const std::filesystem::path& dir, std::string_view prefix) {
  std::vector<std::filesystem::path> shards;
  std::error_code error;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(".safetensors")) shards.push_back(it->path());
  }
  require(!error, ErrorCode::kIo, dir.string(), ": cannot list: ", error.message());
  std::sort(shards.begin(), shards.end());
  return shards;
}

std::vector<std::filesystem::path> list_numbered_shards(const std::filesystem::path& dir, std::string_view prefix) {
  std::vector<std::filesystem::path> shards = list_shards(dir, prefix);
  std::erase_if(shards, [&](const std::filesystem::path& path) {
    const std::string name = path.filename().string();
    const std::optional<ShardName> shard = parse_shard_name(name);
    return !shard || shard->prefix != prefix;
  });
  return shards;
}

void require_all_shards(std::span<const std::filesystem::path> paths) {
  std::vector<std::string> names;
  for (const std::filesystem::path& path : paths) names.push_back(path.filename().string());
  std::optional<ShardName> first;
  std::set<Index> numbers;
  for (const std::string& name : names) {
    const std::optional<ShardName> shard = parse_shard_name(name);
    if (!shard) continue;
    if (!first) first = shard;
    require(shard->count == first->count, ErrorCode::kBadFormat, paths.front().parent_path().string(), ": ",
            shard_file_name(*first, first->number), " is one of ", first->count, " files, ", name, " one of ",
            shard->count);
    numbers.insert(shard->number);
  }
  if (!first) return;
  Index next = 1;
  while (numbers.contains(next)) ++next;
  require(next > first->count, ErrorCode::kNotFound,
          (paths.front().parent_path() / shard_file_name(*first, next)).string(), ": no such file, but ",
          shard_file_name(*first, *numbers.begin()), " is one of ", first->count);
}

}  // namespace mixtral
