// A text as sequences for a model to predict.
#pragma once

#include <string_view>
#include <vector>

#include "mixtral/core/types.hpp"
#include "mixtral/text/tokenizer.hpp"

namespace mixtral {

// What a model reads and what should follow each of it.
struct TextPiece {
  std::vector<TokenId> inputs, targets;
};

// Pieces of at most `context` tokens, each beginning with BOS where the tokenizer asks for it, so that every token of
// the text is a target once; none of an empty text. `max_tokens`: no more than the first so many of the text; 0: all.
// Throws what Tokenizer::encode() throws.
std::vector<TextPiece> text_pieces(std::string_view text, const Tokenizer& tokenizer, Index context,
                                   Index max_tokens = 0);

}  // namespace mixtral
