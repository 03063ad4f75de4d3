// The files of weights that a directory without an index has.
#pragma once

#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

namespace mixtral {

// The files of `dir` named `prefix`*.safetensors, sorted. Throws Error(kIo).
std::vector<std::filesystem::path> list_shards(const std::filesystem::path& dir, std::string_view prefix);

// Those of them that have two numbers there and nothing else: "model-00001-of-00003.safetensors" with "model-".
std::vector<std::filesystem::path> list_numbered_shards(const std::filesystem::path& dir, std::string_view prefix);

// Throws Error(kNotFound) that names the first file that is missing of as many as the numbers say, and
// Error(kBadFormat) if they do not agree. Files without numbers say nothing.
void require_all_shards(std::span<const std::filesystem::path> paths);

}  // namespace mixtral
