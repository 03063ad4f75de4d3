// A vocabulary from the keys of a GGUF file.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "mixtral/text/vocabulary.hpp"

namespace mixtral {

// `bytes`: a GGUF file, which need not have tensors (io/gguf_tokenizer.hpp). Whether a control or user-defined token
// came later is not in such a file: those behind the last ordinary piece did. Throws Error(kBadFormat), and
// kUnsupported about another tokenizer than "llama", by name.
Vocabulary parse_gguf_vocabulary(std::string_view bytes, const std::string& source);

// Its tokenizer.chat_template.
std::optional<std::string> find_gguf_chat_template(std::string_view bytes, const std::string& source);

}  // namespace mixtral
