// Writes what the SentencePiece library loads.
#pragma once

#include <string>

#include "mixtral/core/vocabulary.hpp"

namespace mixtral {

// The ModelProto of a valid vocabulary. It adds no space in front of a text: the tokenizer does.
std::string sentencepiece_model_bytes(const Vocabulary& vocabulary);

}  // namespace mixtral
