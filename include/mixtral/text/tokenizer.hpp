// Text to token ids and back, as SentencePiece's BPE does it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/text/vocabulary.hpp"

namespace mixtral {

// Which special tokens are found where a text spells them: <s>, <|im_end|>, ... Added tokens that are not special
// always are. Pinned.
enum class SpecialTokens : std::int32_t {
  kAsText = 0,  // none: for texts that a stranger wrote, who must not end a turn or begin one
  kAdded = 1,   // those that were added to the model's own pieces
  kAll = 2,     // as Hugging Face's tokenizers do
};

// Immutable: copies share one state, and all functions may be called from several threads.
class Tokenizer {
 public:
  // Throws what Vocabulary::validate() throws.
  explicit Tokenizer(Vocabulary vocabulary);

  // Of a model, a directory or a packed file; throws what load_vocabulary() throws.
  static Tokenizer load(const std::filesystem::path& model);

  // No BOS is added. Each byte that is not UTF-8 counts as U+FFFD. Throws Error(kInvalidArgument) on more than 16 MiB
  // in which no place is certain to end a token (megabytes of two characters in turns).
  std::vector<TokenId> encode(std::string_view text, SpecialTokens special = SpecialTokens::kAsText) const;

  // The same for a text that goes on behind a token: what stands only at the beginning of a text gets no space in
  // front.
  std::vector<TokenId> encode_more(std::string_view text, SpecialTokens special = SpecialTokens::kAsText) const;

  // Always UTF-8: bytes of byte pieces that make no character become U+FFFD each. Control pieces and ids without a
  // piece (Vocabulary::n_ids) are silent. The space that encode() put in front is taken off. Throws
  // Error(kInvalidArgument) on an id outside the vocabulary.
  std::string decode(std::span<const TokenId> ids) const;

  // What the id adds to a text: the piece with its spaces, the byte of a byte piece, nothing for a control piece or
  // where there is no piece. Throws Error(kInvalidArgument) on an id outside the vocabulary.
  std::string_view token_bytes(TokenId id) const;

  const Vocabulary& vocabulary() const noexcept;

 private:
  struct State;
  std::shared_ptr<const State> state_;
};

}  // namespace mixtral
