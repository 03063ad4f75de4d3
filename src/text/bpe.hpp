// Byte-pair encoding of one run of text, exactly as the SentencePiece library does it.
#pragma once

#include <array>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mixtral/text/vocabulary.hpp"
#include "text/piece_matcher.hpp"

namespace mixtral {

// Sennrich et al. 2016, in SentencePiece's form: text is a list of characters; of all neighbours that make a piece
// together, those with the highest score are joined first, the leftmost of equals, until none are left. Immutable.
class BpeEncoder {
 public:
  // `vocabulary` must be valid and outlive it.
  explicit BpeEncoder(const Vocabulary& vocabulary);

  // Appends the ids of `text`, in which spaces count as kSpaceSymbol and each byte that is not UTF-8 as U+FFFD. What no
  // piece covers becomes byte pieces; without those one unk_id for each series of such characters, also one that begins
  // at the end of `ids`. Takes time n log n and up to about 60 bytes of memory a byte.
  void encode(std::string_view text, std::vector<TokenId>& ids) const;

 private:
  struct Symbol;
  struct Merges;

  TokenId find(std::string_view text) const noexcept;  // -1: no piece
  bool joins(TokenId id) const noexcept;
  std::vector<Symbol> split(std::string_view text) const;
  void look(int i, Merges& merges) const;
  void append(std::string_view text, const Merges& merges, std::vector<TokenId>& ids) const;

  const Vocabulary& vocabulary_;
  std::unordered_map<std::string_view, TokenId> ids_;  // the model's own pieces
  PieceMatcher user_pieces_;
  std::array<TokenId, 256> byte_ids_{};
  bool has_bytes_;
};

}  // namespace mixtral
