// Small files that travel inside a packed or GGUF file: the tokenizer's, and the conversation's template.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace mixtral {

// tokenizer.model, tokenizer.json, tokenizer_config.json, tokenizer.gguf (the tokenizer's keys of a GGUF file) ...
struct EmbeddedFile {
  std::string name, contents;
};

// All that are in such a file. Throws what load_checkpoint() throws.
std::vector<EmbeddedFile> read_embedded_files(const std::filesystem::path& path);

}  // namespace mixtral
