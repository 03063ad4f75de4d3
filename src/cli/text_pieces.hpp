// A text as sequences for a model to predict.
#pragma once

#include <filesystem>
#include <vector>

#include "mixtral/core/types.hpp"
#include "mixtral/text/tokenizer.hpp"

namespace mixtral::cli {

// What a model reads and what should follow each of it.
struct Piece {
  std::vector<TokenId> inputs, targets;
};

// Pieces of at most `context` tokens, each beginning with BOS where the tokenizer asks for it, so that every token of
// the text is a target once. `max_tokens`: no more than the first so many of the text; 0: all. Throws what read_input()
// and encode() throw, and Error(kInvalidArgument) on an empty file.
std::vector<Piece> text_pieces(const std::filesystem::path& file, const Tokenizer& tokenizer, Index context,
                               Index max_tokens = 0);

}  // namespace mixtral::cli
