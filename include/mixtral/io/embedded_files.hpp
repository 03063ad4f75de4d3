// Small files that travel inside a packed file: the tokenizer's, and the conversation's template.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace mixtral {

// tokenizer.model, tokenizer.json, tokenizer_config.json ...
struct EmbeddedFile {
  std::string name, contents;
};

// All that are in a packed file, as load_packed() gives them, and what it throws.
std::vector<EmbeddedFile> read_embedded_files(const std::filesystem::path& path);

}  // namespace mixtral
