#include "mixtral/text/text_pieces.hpp"

#include <algorithm>

namespace mixtral {

std::vector<TextPiece> text_pieces(std::string_view text, const Tokenizer& tokenizer, Index context, Index max_tokens) {
  std::vector<TokenId> all = tokenizer.encode(text);
  if (max_tokens > 0) all.resize(std::min(all.size(), static_cast<std::size_t>(max_tokens)));
  const TokenId bos_id = tokenizer.vocabulary().bos_id;
  const bool bos = tokenizer.vocabulary().add_bos && bos_id >= 0;
  std::vector<TextPiece> pieces;
  for (std::size_t begin = 0; begin < all.size();) {
    const std::size_t count = std::min(all.size() - begin, static_cast<std::size_t>(context));
    TextPiece piece;
    if (bos) piece.inputs.push_back(bos_id);
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(begin),
               last = first + static_cast<std::ptrdiff_t>(count);
    piece.inputs.insert(piece.inputs.end(), first, bos ? last - 1 : last);
    piece.targets.assign(bos ? first : first + 1, last);
    pieces.push_back(std::move(piece));
    begin += count;
  }
  return pieces;
}

}  // namespace mixtral
