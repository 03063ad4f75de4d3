// The files of a checkpoint directory in memory, to be changed and written elsewhere.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "mixtral/core/file.hpp"
#include "mixtral/io/safetensors.hpp"
#include "support/temp_dir.hpp"

namespace mixtral::test {

using Files = std::map<std::string, std::string>;  // name -> contents

inline Files read_dir(const std::filesystem::path& dir) {
  Files files;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    files[entry.path().filename().string()] = read_file(entry.path(), Index{1} << 30);
  }
  return files;
}

inline void write_dir(const std::filesystem::path& dir, const Files& files) {
  for (const auto& [name, contents] : files) write_text(dir / name, contents);
}

inline std::uint64_t header_bytes(const std::string& safetensors) {
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < 8; ++i) length |= std::uint64_t{static_cast<unsigned char>(safetensors[i])} << (8 * i);
  return length;
}

inline std::string with_header(const std::string& header, std::string_view data) {
  std::string out;
  for (std::size_t i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> (8 * i) & 0xff);
  return out.append(header).append(data);
}

// Deals the tensors of `files`' model.safetensors out to `n_shards` files with an index.
inline Files sharded(Files files, std::size_t n_shards) {
  const std::string whole = files.at("model.safetensors");
  files.erase("model.safetensors");
  const SafetensorsFile source(std::as_bytes(std::span(whole)), "model.safetensors");
  std::vector<std::vector<SafetensorsEntry>> shards(n_shards);
  nlohmann::json index = {{"metadata", {{"total_size", whole.size() - 8 - header_bytes(whole)}}}};
  const auto shard_name = [&](std::size_t i) {
    return "model-0000" + std::to_string(i + 1) + "-of-0000" + std::to_string(n_shards) + ".safetensors";
  };
  for (std::size_t i = 0; i < source.entries().size(); ++i) {
    shards[i % n_shards].push_back(source.entries()[i]);
    index["weight_map"][source.entries()[i].name] = shard_name(i % n_shards);
  }
  const TempDir dir;
  for (std::size_t i = 0; i < n_shards; ++i) {
    write_safetensors(dir / "shard", shards[i], {{"format", "pt"}});
    files[shard_name(i)] = read_file(dir / "shard", Index{1} << 30);
  }
  files["model.safetensors.index.json"] = index.dump(1);
  return files;
}

}  // namespace mixtral::test
