#include "text/bpe.hpp"

#include <cmath>
#include <queue>
#include <string>
#include <utility>

#include "mixtral/core/float_environment.hpp"
#include "mixtral/core/utf8.hpp"
#include "text/added_tokens.hpp"

namespace mixtral {
// A part of the text on its way to a piece; one that was joined to its left neighbour is empty.
struct BpeEncoder::Symbol {
  std::string_view text;
  int previous, next;   // -1: none
  float score = 0;      // of the piece that it makes with the next one
  bool joins = false;   // whether it makes one
  bool frozen = false;  // a user-defined piece joins nothing
};

// The symbols of one run, and which neighbours join next. The best of all pairs is better than the pairs beside it, so
// only such pairs wait in the queue: of a million equal characters the leftmost two, not a million pairs.
struct BpeEncoder::Merges {
  struct Pair {
    float score;
    int left;
    std::size_t size;  // bytes of both when it was queued: otherwise it is out of date

    bool operator<(const Pair& other) const noexcept {
      return score != other.score ? score < other.score : left > other.left;
    }
  };

  Symbol& at(int i) { return symbols[static_cast<std::size_t>(i)]; }

  // Queues the pair that begins with symbol i, if neither the pair before it nor the one behind it comes first.
  void consider(int i) {
    if (i < 0 || !at(i).joins) return;
    const Symbol& s = at(i);
    if (s.previous >= 0 && at(s.previous).joins && at(s.previous).score >= s.score) return;
    if (at(s.next).joins && at(s.next).score > s.score) return;
    queue.push({s.score, i, s.text.size() + at(s.next).text.size()});
  }

  std::vector<Symbol> symbols;
  std::priority_queue<Pair> queue;  // the best first
  // What an unused piece was made from, and is taken apart into again.
  std::unordered_map<std::string_view, std::pair<std::string_view, std::string_view>> parts;
};

BpeEncoder::BpeEncoder(const Vocabulary& vocabulary) : vocabulary_(vocabulary), has_bytes_(vocabulary.has_bytes()) {
  std::vector<bool> merged_to(vocabulary.pieces.size(), true);
  for (const AddedToken& token : vocabulary.added) merged_to[static_cast<std::size_t>(token.id)] = token.own_piece;
  std::vector<std::string> user_pieces;
  ids_.reserve(vocabulary.pieces.size());
  for (std::size_t i = 0; i < vocabulary.pieces.size(); ++i) {
    const std::string& piece = vocabulary.pieces[i];
    if (piece.empty() || !merged_to[i]) continue;
    const auto id = static_cast<TokenId>(i);
    ids_.emplace(piece, id);
    if (vocabulary.types[i] == PieceType::kByte) byte_ids_[static_cast<std::size_t>(byte_of_piece(piece))] = id;
    if (vocabulary.types[i] == PieceType::kUserDefined) user_pieces.push_back(piece);
  }
  user_pieces_ = PieceMatcher(std::move(user_pieces));
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

// Characters, and the longest user-defined piece wherever one begins.
std::vector<BpeEncoder::Symbol> BpeEncoder::split(std::string_view text) const {
  std::vector<Symbol> symbols;
  symbols.reserve(text.size() / 2);
  while (!text.empty()) {
    const std::size_t frozen = user_pieces_.match(text);
    const std::size_t size = frozen > 0 ? frozen : static_cast<std::size_t>(utf8_char_length(text));
    const int i = static_cast<int>(symbols.size());
    symbols.push_back({.text = text.substr(0, size), .previous = i - 1, .next = i + 1, .frozen = frozen > 0});
    text.remove_prefix(size);
  }
  if (!symbols.empty()) symbols.back().next = -1;
  return symbols;
}

// Finds out whether a symbol and the next one make a piece.
void BpeEncoder::look(int i, Merges& merges) const {
  if (i < 0) return;
  Symbol& left = merges.at(i);
  left.joins = false;
  if (left.next < 0 || left.frozen || merges.at(left.next).frozen) return;
  const Symbol& right = merges.at(left.next);
  const std::string_view joined(left.text.data(), left.text.size() + right.text.size());  // neighbours in one text
  const TokenId id = find(joined);
  if (id < 0 || !joins(id)) return;
  left.joins = true;
  left.score = vocabulary_.scores[static_cast<std::size_t>(id)];
  if (vocabulary_.types[static_cast<std::size_t>(id)] == PieceType::kUnused)
    merges.parts[joined] = {left.text, right.text};
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
  Merges merges;
  merges.symbols = split(normal);
  const auto n = static_cast<int>(merges.symbols.size());
  for (int i = 0; i < n; ++i) look(i, merges);
  for (int i = 0; i < n; ++i) merges.consider(i);
  while (!merges.queue.empty()) {
    const auto [score, i, size] = merges.queue.top();
    merges.queue.pop();
    Symbol& left = merges.at(i);
    if (!left.joins || left.text.size() + merges.at(left.next).text.size() != size) continue;
    Symbol& right = merges.at(left.next);
    left.text = {left.text.data(), size};
    left.next = right.next;
    right = {.text = {}, .previous = -1, .next = -1};
    if (left.next >= 0) merges.at(left.next).previous = i;
    look(left.previous, merges);
    look(i, merges);
    // The pairs that changed, and those beside them.
    if (left.previous >= 0) merges.consider(merges.at(left.previous).previous);
    merges.consider(left.previous);
    merges.consider(i);
    merges.consider(left.next);
  }
  for (int i = n > 0 ? 0 : -1; i >= 0; i = merges.at(i).next) append(merges.at(i).text, merges, ids);
}

}  // namespace mixtral
