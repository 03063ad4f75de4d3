// A vocabulary from the keys of a GGUF file, and back.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/text/vocabulary.hpp"

namespace mixtral {

// `bytes`: a GGUF file, which need not have tensors (io/gguf_tokenizer.hpp). Whether a control or user-defined token
// came later is not in such a file: those behind the last ordinary piece did. Throws Error(kBadFormat), and
// kUnsupported about another tokenizer than "llama", by name.
Vocabulary parse_gguf_vocabulary(std::string_view bytes, const std::string& source);

// Its tokenizer.chat_template.
std::optional<std::string> find_gguf_chat_template(std::string_view bytes, const std::string& source);

// The keys of a vocabulary, as a GGUF file without tensors; n_ids of it are its tokens. `ends`: what ends a sequence.
// What such keys cannot say is added to `notes`. Throws Error(kUnsupported) if there are more pieces than n_ids.
std::string gguf_vocabulary_file(const Vocabulary& vocabulary, const std::optional<std::string>& chat_template,
                                 std::span<const TokenId> ends, const std::string& source,
                                 std::vector<std::string>& notes);

}  // namespace mixtral
