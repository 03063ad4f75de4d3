#include "text/piece_matcher.hpp"

#include <algorithm>
#include <utility>

namespace mixtral {

PieceMatcher::PieceMatcher(std::vector<std::string> texts) : texts_(std::move(texts)) {
  std::sort(texts_.begin(), texts_.end());
  for (const std::string& text : texts_) first_byte_[static_cast<unsigned char>(text[0])] = true;
}

std::size_t PieceMatcher::match(std::string_view text) const noexcept {
  if (text.empty() || !first_byte_[static_cast<unsigned char>(text[0])]) return 0;
  std::size_t longest = 0;
  auto first = texts_.begin(), last = texts_.end();  // those that begin as `text` does, byte by byte
  for (std::size_t n = 0; n < text.size() && first != last; ++n) {
    const auto byte = [n](std::string_view piece) {
      return n < piece.size() ? static_cast<int>(static_cast<unsigned char>(piece[n])) : -1;
    };
    const int wanted = byte(text);
    first = std::partition_point(first, last, [&](std::string_view piece) { return byte(piece) < wanted; });
    last = std::partition_point(first, last, [&](std::string_view piece) { return byte(piece) == wanted; });
    if (first != last && first->size() == n + 1) longest = n + 1;
  }
  return longest;
}

std::size_t PieceMatcher::next_candidate(std::string_view text, std::size_t from) const noexcept {
  const auto at = std::find_if(text.begin() + static_cast<std::ptrdiff_t>(std::min(from, text.size())), text.end(),
                               [&](char c) { return first_byte_[static_cast<unsigned char>(c)]; });
  return at == text.end() ? text.npos : static_cast<std::size_t>(at - text.begin());
}

}  // namespace mixtral
