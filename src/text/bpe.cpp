#include "text/bpe.hpp"

#include <algorithm>
#include <cmath>
#include <queue>
#include <string>
#include <utility>

#include "mixtral/core/float_environment.hpp"
#include "mixtral/core/utf8.hpp"

namespace mixtral {
namespace {

// Spaces become kSpaceSymbol, bytes that are not UTF-8 U+FFFD.
std::string normalise(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  while (!text.empty()) {
    const int length = utf8_char_length(text);
    const std::size_t used = length > 0 ? static_cast<std::size_t>(length) : 1;
    out += length <= 0 ? kReplacementCharacter : text[0] == ' ' ? kSpaceSymbol : text.substr(0, used);
    text.remove_prefix(used);
  }
  return out;
}

}  // namespace

// A part of the text on its way to a piece; one that was joined to its left neighbour is empty.
struct BpeEncoder::Symbol {
  std::string_view text;
  int previous, next;  // -1: none
  bool frozen;         // a user-defined piece joins nothing
};

struct BpeEncoder::Merges {
  struct Pair {
    float score;
    int left, right;
    std::size_t size;  // bytes of both when it was found: otherwise it is out of date

    bool operator<(const Pair& other) const noexcept {
      return score != other.score ? score < other.score : left > other.left;
    }
  };
  std::priority_queue<Pair> queue;  // the best first
  // What an unused piece was made from, and is taken apart into again.
  std::unordered_map<std::string_view, std::pair<std::string_view, std::string_view>> parts;
};

BpeEncoder::BpeEncoder(const Vocabulary& vocabulary) : vocabulary_(vocabulary), has_bytes_(vocabulary.has_bytes()) {
  ids_.reserve(vocabulary.pieces.size());
  for (std::size_t i = 0; i < vocabulary.pieces.size(); ++i) {
    const std::string& piece = vocabulary.pieces[i];
    const auto id = static_cast<TokenId>(i);
    ids_.emplace(piece, id);
    if (vocabulary.types[i] == PieceType::kByte) byte_ids_[static_cast<std::size_t>(byte_of_piece(piece))] = id;
    if (vocabulary.types[i] == PieceType::kUserDefined) user_pieces_.push_back(piece);
  }
  std::sort(user_pieces_.begin(), user_pieces_.end());
}

TokenId BpeEncoder::find(std::string_view text) const noexcept {
  const auto found = ids_.find(text);
  return found == ids_.end() ? -1 : found->second;
}

// Whether neighbours may join to this piece.
bool BpeEncoder::joins(TokenId id) const noexcept {
  const auto i = static_cast<std::size_t>(id);
  switch (vocabulary_.types[i]) {
    case PieceType::kNormal: return !(std::isinf(vocabulary_.scores[i]) && vocabulary_.scores[i] < 0);
    case PieceType::kUserDefined:
    case PieceType::kUnused: return true;
    default: return false;
  }
}

// Bytes of the longest user-defined piece at the front of `text`, or 0.
std::size_t BpeEncoder::user_piece(std::string_view text) const noexcept {
  std::size_t longest = 0;
  auto first = user_pieces_.begin(), last = user_pieces_.end();  // those that begin as `text` does, byte by byte
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

// Characters, and the longest user-defined piece wherever one begins.
std::vector<BpeEncoder::Symbol> BpeEncoder::split(std::string_view text) const {
  std::vector<Symbol> symbols;
  symbols.reserve(text.size());
  while (!text.empty()) {
    const std::size_t frozen = user_piece(text);
    const std::size_t size = frozen > 0 ? frozen : static_cast<std::size_t>(utf8_char_length(text));
    const int i = static_cast<int>(symbols.size());
    symbols.push_back({text.substr(0, size), i - 1, i + 1, frozen > 0});
    text.remove_prefix(size);
  }
  if (!symbols.empty()) symbols.back().next = -1;
  return symbols;
}

// Queues two neighbours if they make a piece.
void BpeEncoder::consider(const std::vector<Symbol>& symbols, int left, int right, Merges& merges) const {
  if (left < 0 || right < 0) return;
  const Symbol &l = symbols[static_cast<std::size_t>(left)], &r = symbols[static_cast<std::size_t>(right)];
  if (l.frozen || r.frozen) return;
  const std::string_view joined(l.text.data(), l.text.size() + r.text.size());  // neighbours in one text
  const TokenId id = find(joined);
  if (id < 0 || !joins(id)) return;
  const auto i = static_cast<std::size_t>(id);
  merges.queue.push({vocabulary_.scores[i], left, right, joined.size()});
  if (vocabulary_.types[i] == PieceType::kUnused) merges.parts[joined] = {l.text, r.text};
}

// The id of a finished symbol, or of its parts.
void BpeEncoder::append(std::string_view text, const Merges& merges, std::vector<TokenId>& ids) const {
  const TokenId found = find(text);
  const TokenId id = found >= 0 ? found : vocabulary_.unk_id;
  if (vocabulary_.types[static_cast<std::size_t>(id)] == PieceType::kUnused) {
    if (const auto parts = merges.parts.find(text); parts != merges.parts.end()) {
      append(parts->second.first, merges, ids);
      append(parts->second.second, merges, ids);
      return;
    }
  }
  if (id == vocabulary_.unk_id && has_bytes_) {
    for (const char c : text) ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
  } else if (id != vocabulary_.unk_id || ids.empty() || ids.back() != id) {
    ids.push_back(id);
  }
}

void BpeEncoder::encode(std::string_view text, std::vector<TokenId>& ids) const {
  const FloatScope floats;  // scores are compared
  const std::string normal = normalise(text);
  std::vector<Symbol> symbols = split(normal);
  const auto at = [&](int i) -> Symbol& { return symbols[static_cast<std::size_t>(i)]; };
  Merges merges;
  for (int i = 0; i + 1 < static_cast<int>(symbols.size()); ++i) consider(symbols, i, i + 1, merges);
  while (!merges.queue.empty()) {
    const Merges::Pair best = merges.queue.top();
    merges.queue.pop();
    Symbol &left = at(best.left), &right = at(best.right);
    if (left.text.empty() || right.text.empty() || left.text.size() + right.text.size() != best.size) continue;
    left.text = {left.text.data(), best.size};
    right.text = {};
    left.next = right.next;
    if (left.next >= 0) at(left.next).previous = best.left;
    consider(symbols, left.previous, best.left, merges);
    consider(symbols, best.left, left.next, merges);
  }
  for (int i = symbols.empty() ? -1 : 0; i >= 0; i = at(i).next) append(at(i).text, merges, ids);
}

}  // namespace mixtral
