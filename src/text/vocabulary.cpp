// The rules of a vocabulary: what the SentencePiece library (0.1.97) can encode with, so that every vocabulary that is
// accepted has ids to be compared with.
#include "mixtral/text/vocabulary.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "mixtral/core/error.hpp"
#include "mixtral/core/utf8.hpp"

namespace mixtral {
namespace {

// That library's matcher collects at most 64 user-defined pieces that begin at one place.
constexpr Index kMaxNestedUserPieces = 64;

class Checker {
 public:
  Checker(const Vocabulary& vocabulary, std::string_view source)
      : v_(vocabulary), source_(source), own_(vocabulary.pieces.size(), true) {}

  void check() {
    check_sizes();
    check_added();
    for (TokenId id = 0; id < v_.size(); ++id) check_piece(id);
    check_duplicates();
    check_bytes();
    check_special_ids();
    check_user_defined();
    check(v_.unk_text.size() <= Vocabulary::kMaxPieceBytes && is_utf8(v_.unk_text),
          "the text of the unknown piece is not UTF-8 of at most ", Vocabulary::kMaxPieceBytes, " bytes");
  }

 private:
  template <class... Parts>
  void check(bool ok, const Parts&... parts) const {
    require(ok, ErrorCode::kBadFormat, source_, ": ", parts...);
  }

  const std::string& piece(TokenId id) const { return v_.pieces[static_cast<std::size_t>(id)]; }
  PieceType type(TokenId id) const { return v_.types[static_cast<std::size_t>(id)]; }

  void check_sizes() const {
    check(v_.size() >= 1 && v_.size() <= Vocabulary::kMaxPieces, v_.size(), " pieces, expected 1 to ",
          Vocabulary::kMaxPieces);
    check(v_.scores.size() == v_.pieces.size(), v_.pieces.size(), " pieces, but ", v_.scores.size(), " scores");
    check(v_.types.size() == v_.pieces.size(), v_.pieces.size(), " pieces, but ", v_.types.size(), " types");
  }

  void check_piece(TokenId id) const {
    const std::string& text = piece(id);
    check(!text.empty() || type(id) == PieceType::kUnused, "piece ", id, " is empty");
    check(text.size() <= Vocabulary::kMaxPieceBytes, "piece ", id, " has ", text.size(), " bytes, expected at most ",
          Vocabulary::kMaxPieceBytes);
    check(is_utf8(text), "piece ", id, " is not UTF-8");
    const auto number = static_cast<std::int32_t>(type(id));
    check(number >= 1 && number <= 6, "piece ", id, " has type ", number, ", expected 1 to 6");
    const float score = v_.scores[static_cast<std::size_t>(id)];
    check(std::isfinite(score) || score < 0, "piece ", id, " has score ", score);
    // That library would take the character for the control piece and then fail.
    require(!is_own(id) || type(id) != PieceType::kControl ||
                static_cast<std::size_t>(utf8_char_length(text)) < text.size(),
            ErrorCode::kUnsupported, source_, ": piece ", id, " \"", text, "\" is a control piece of one character");
  }

  void check_duplicates() const {
    std::unordered_map<std::string_view, TokenId> seen;
    seen.reserve(v_.pieces.size());
    for (TokenId id = 0; id < v_.size(); ++id) {
      if (piece(id).empty()) continue;
      const auto [first, is_new] = seen.emplace(piece(id), id);
      check(is_new, "pieces ", first->second, " and ", id, " are both \"", piece(id), "\"");
    }
  }

  void check_bytes() const {
    std::array<bool, 256> seen{};
    for (TokenId id = 0; id < v_.size(); ++id) {
      if (type(id) != PieceType::kByte) continue;
      const int byte = byte_of_piece(piece(id));
      check(byte >= 0, "byte piece ", id, " is \"", piece(id), "\", expected <0x00> to <0xFF>");
      seen[static_cast<std::size_t>(byte)] = true;
    }
    const auto n = std::count(seen.begin(), seen.end(), true);
    const auto missing = std::find(seen.begin(), seen.end(), false) - seen.begin();
    check(n == 0 || n == 256, n, " of 256 byte pieces: the one for byte ", missing, " is missing");
  }

  void check_special_ids() const {
    const auto n_unknown = std::count(v_.types.begin(), v_.types.end(), PieceType::kUnknown);
    check(n_unknown == 1, n_unknown, " unknown pieces, expected 1");
    check(v_.unk_id >= 0 && v_.unk_id < v_.size() && type(v_.unk_id) == PieceType::kUnknown, "unk_id ", v_.unk_id,
          " is not the unknown piece");
    check(v_.bos_id >= -1 && v_.bos_id < v_.size(), "bos_id ", v_.bos_id, " is outside the vocabulary of ", v_.size());
    check(v_.eos_id >= -1 && v_.eos_id < v_.size(), "eos_id ", v_.eos_id, " is outside the vocabulary of ", v_.size());
    check(v_.bos_id >= 0 || !v_.add_bos, "add_bos is set, but there is no bos_id");
    const auto prefix = static_cast<std::int32_t>(v_.space_prefix);
    check(prefix >= 0 && prefix <= 2, "space_prefix is ", prefix, ", expected 0 to 2");
    const auto parts = static_cast<std::int32_t>(v_.prefixed_parts), rules = static_cast<std::int32_t>(v_.added_rules);
    check(parts >= 0 && parts <= 2, "prefixed_parts is ", parts, ", expected 0 to 2");
    check(rules == 0 || rules == 1, "added_rules is ", rules, ", expected 0 or 1");
  }

  void check_user_defined() const {
    std::vector<std::string_view> sorted;
    for (TokenId id = 0; id < v_.size(); ++id) {
      if (type(id) != PieceType::kUserDefined || !is_own(id)) continue;
      require(piece(id).find('\0') == std::string::npos, ErrorCode::kUnsupported, source_, ": user-defined piece ", id,
              " contains a NUL byte");
      sorted.push_back(piece(id));
    }
    std::sort(sorted.begin(), sorted.end());
    std::vector<std::string_view> nested;  // each is a prefix of the next
    for (const std::string_view text : sorted) {
      while (!nested.empty() && !text.starts_with(nested.back())) nested.pop_back();
      nested.push_back(text);
      require(static_cast<Index>(nested.size()) <= kMaxNestedUserPieces, ErrorCode::kUnsupported, source_,
              ": more than ", kMaxNestedUserPieces, " user-defined pieces begin like \"", nested.front(), "\"");
    }
  }

  void check_added() {
    std::unordered_set<TokenId> seen;
    for (const AddedToken& token : v_.added) {
      check(token.id >= 0 && token.id < v_.size() && !piece(token.id).empty(), "added token ", token.id,
            " is no piece of the vocabulary of ", v_.size());
      check(seen.insert(token.id).second, "added token ", token.id, " is given twice");
      own_[static_cast<std::size_t>(token.id)] = token.own_piece;
    }
  }

  bool is_own(TokenId id) const { return own_[static_cast<std::size_t>(id)]; }

  const Vocabulary& v_;
  std::string_view source_;
  std::vector<bool> own_;  // [size]: no added token, so that SentencePiece's rules hold for it
};

}  // namespace

bool Vocabulary::has_bytes() const noexcept {
  return std::find(types.begin(), types.end(), PieceType::kByte) != types.end();
}

TokenId Vocabulary::find(std::string_view piece) const noexcept {
  const auto found = std::find(pieces.begin(), pieces.end(), piece);
  return found == pieces.end() || piece.empty() ? -1 : static_cast<TokenId>(found - pieces.begin());
}

void Vocabulary::validate(std::string_view source) const { Checker(*this, source).check(); }

int byte_of_piece(std::string_view piece) noexcept {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; };
  const int high = digit(piece[3]), low = digit(piece[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace mixtral
