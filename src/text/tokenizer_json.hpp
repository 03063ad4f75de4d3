// What else is read from a tokenizer.json.
#pragma once

#include <string_view>

#include "mixtral/text/vocabulary.hpp"

namespace mixtral {

// Gives `vocabulary`, which was read from the SentencePiece model of the same pieces, the added tokens of a
// tokenizer.json and its rules about spaces. Throws Error(kBadFormat | kUnsupported); the vocabulary is then of no use.
void read_added_tokens(std::string_view text, std::string_view source, Vocabulary& vocabulary);

}  // namespace mixtral
