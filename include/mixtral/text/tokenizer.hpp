// Text to token ids and back, as SentencePiece's BPE does it.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/core/vocabulary.hpp"

namespace mixtral {

// Immutable: copies share one state, and all functions may be called from several threads.
class Tokenizer {
 public:
  // Throws what Vocabulary::validate() throws.
  explicit Tokenizer(Vocabulary vocabulary);

  // Of a model, a directory or a packed file; throws what load_vocabulary() throws.
  static Tokenizer load(const std::filesystem::path& model);

  // No BOS is added, and "<s>" in the text is three ordinary characters. Each byte that is not UTF-8 counts as
  // U+FFFD. Throws Error(kInvalidArgument) on more than 16 MiB in which no place is certain to end a token
  // (megabytes of one repeated character).
  std::vector<TokenId> encode(std::string_view text) const;

  // Always UTF-8: bytes of byte pieces that make no character become U+FFFD each. Control pieces are silent. The
  // space that encode() put in front is taken off. Throws Error(kInvalidArgument) on an id outside the vocabulary.
  std::string decode(std::span<const TokenId> ids) const;

  // What the id adds to a text: the piece with its spaces, the byte of a byte piece, nothing for a control piece.
  // Throws Error(kInvalidArgument) on an id outside the vocabulary.
  std::string_view token_bytes(TokenId id) const;

  const Vocabulary& vocabulary() const noexcept;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace mixtral
