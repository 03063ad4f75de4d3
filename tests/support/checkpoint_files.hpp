// The files of a checkpoint directory in memory, to be changed and written elsewhere, and what was loaded from them.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "mixtral/core/file.hpp"
#include "mixtral/io/safetensors.hpp"
#include "mixtral/model/weights.hpp"
#include "support/temp_dir.hpp"

namespace mixtral::test {

using Files = std::map<std::string, std::string>;  // name -> contents

inline Files read_dir(const std::filesystem::path& dir) {
  Files files;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    if (entry.is_regular_file()) files[entry.path().filename().string()] = read_file(entry.path(), Index{1} << 30);
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

// What write_safetensors() writes.
inline std::string safetensors_text(const std::vector<SafetensorsEntry>& tensors,
                                    const SafetensorsMetadata& metadata = {}) {
  const TempDir dir;
  write_safetensors(dir / "f", tensors, metadata);
  return read_file(dir / "f", Index{1} << 30);
}

// Deals the tensors of `files`' <stem>.safetensors out to `n_shards` files with an index.
inline Files sharded(Files files, std::size_t n_shards, const std::string& stem = "model") {
  const std::string whole = files.at(stem + ".safetensors");
  files.erase(stem + ".safetensors");
  const SafetensorsFile source(std::as_bytes(std::span(whole)), stem + ".safetensors");
  std::vector<std::vector<SafetensorsEntry>> shards(n_shards);
  nlohmann::json index = {{"metadata", {{"total_size", whole.size() - 8 - header_bytes(whole)}}}};
  const auto shard_name = [&](std::size_t i) {
    return stem + "-0000" + std::to_string(i + 1) + "-of-0000" + std::to_string(n_shards) + ".safetensors";
  };
  for (std::size_t i = 0; i < source.entries().size(); ++i) {
    shards[i % n_shards].push_back(source.entries()[i]);
    index["weight_map"][source.entries()[i].name] = shard_name(i % n_shards);
  }
  for (std::size_t i = 0; i < n_shards; ++i) files[shard_name(i)] = safetensors_text(shards[i], {{"format", "pt"}});
  files[stem + ".safetensors.index.json"] = index.dump(1);
  return files;
}

// The value at [row, col], whatever the dtype.
inline float value(const MatrixView& view, Index row, Index col) {
  const std::byte* p = view.row(row) + col * size_of(view.dtype);
  const auto read = [&](auto number) {
    std::memcpy(&number, p, sizeof number);
    return to_float(number);
  };
  if (view.dtype == DType::kBF16) return read(bf16{});
  if (view.dtype == DType::kF16) return read(f16{});
  return read(0.0f);
}

inline void check_same_values(const Model& got, const Model& want) {
  for_each_tensor(want.config, [&](const TensorSlot& slot, const Shape<2>& shape) {
    CAPTURE(slot_name(slot));
    bool same = true;
    for (Index r = 0; r < shape[0]; ++r) {
      for (Index c = 0; c < shape[1]; ++c) {
        same = same && value(got.weights.at(slot), r, c) == value(want.weights.at(slot), r, c);
      }
    }
    CHECK(same);
  });
}

}  // namespace mixtral::test
