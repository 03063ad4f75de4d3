// What of a GGUF file says how texts become ids.
#pragma once

#include <string_view>
#include <vector>

#include "mixtral/io/embedded_files.hpp"
#include "mixtral/io/gguf.hpp"

namespace mixtral {

inline constexpr std::string_view kGgufTokenizerName = "tokenizer.gguf";

// Its keys "tokenizer." as a GGUF file of their own, without tensors, so that a packed file can bring it along; nothing
// if there are none.
std::vector<EmbeddedFile> gguf_tokenizer_files(const GgufFile& file);

}  // namespace mixtral
