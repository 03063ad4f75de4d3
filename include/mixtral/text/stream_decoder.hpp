// Text of tokens as they arrive, cut only between characters.
#pragma once

#include <string>
#include <utility>

#include "mixtral/text/tokenizer.hpp"

namespace mixtral {

// All that push() and flush() return, joined, equals Tokenizer::decode() of all ids. To continue a prompt, push
// the prompt's ids first and drop what they return.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer) : tokenizer_(std::move(tokenizer)) {}

  // The text that is complete with this id; may be empty. Throws Error(kInvalidArgument) on an id outside the
  // vocabulary; then nothing has changed.
  std::string push(TokenId id);

  // What is left at the end, a U+FFFD for each byte of a character that never became complete. The next id
  // begins a new text.
  std::string flush();

 private:
  std::string take_pending(bool all);

  Tokenizer tokenizer_;
  std::string pending_;   // bytes that may still become a character
  bool at_start_ = true;  // no text yet: the next piece loses the space that encode() put in front
};

}  // namespace mixtral
