// `mixtral pack IN OUT.gguf`: a model as a GGUF file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cli/common.hpp"

namespace mixtral::cli {

// "f16", "q8_0", "q4_0".
extern const std::vector<std::string> kGgufFormats;

struct GgufRequest {
  std::filesystem::path in, out;
  std::string weights, attention, head;  // formats; an empty one is as usual with `weights`
  std::string synthetic;                 // instead of `in`: random weights of this shape
  Index layers = 0;                      // of these; 0: all
};

// A file whose name ends in .gguf is to be one.
bool names_gguf(const std::filesystem::path& out);
void pack_gguf(const GgufRequest& request, const CommonOptions& common);

}  // namespace mixtral::cli
