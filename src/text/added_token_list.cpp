#include "text/added_token_list.hpp"

#include <limits>

#include "mixtral/core/error.hpp"
#include "mixtral/core/utf8.hpp"

namespace mixtral {
namespace {

// Whether the piece can arise from a text; one that cannot is a control piece if the file calls it special.
bool can_be_merged_to(const Vocabulary& v, TokenId id) {
  const auto i = static_cast<std::size_t>(id);
  if (v.types[i] == PieceType::kUnknown || v.types[i] == PieceType::kByte) return true;
  if (v.types[i] != PieceType::kNormal) return false;
  const bool is_character = static_cast<std::size_t>(utf8_char_length(v.pieces[i])) == v.pieces[i].size();
  return is_character || v.scores[i] != -std::numeric_limits<float>::infinity();
}

}  // namespace

AddedTokenList::AddedTokenList(Vocabulary& vocabulary, std::string_view source)
    : v_(vocabulary), source_(source), n_own_(vocabulary.size()) {
  v_.added.clear();
  ids_.reserve(v_.pieces.size());
  for (TokenId id = 0; id < v_.size(); ++id) ids_.emplace(v_.pieces[static_cast<std::size_t>(id)], id);
}

TokenId AddedTokenList::find(std::string_view content) const noexcept {
  const auto found = ids_.find(std::string(content));
  return found == ids_.end() ? -1 : found->second;
}

void AddedTokenList::add(const std::string& content, TokenId id, AddedToken token) {
  const auto check = [&](bool ok, const auto&... parts) {
    require(ok, ErrorCode::kBadFormat, source_, ": ", parts...);
  };
  const auto i = static_cast<std::size_t>(id);
  check(!content.empty(), "added token ", id, " is empty");
  check(added_.insert(id).second, "added token ", id, " is given twice");
  if (i >= v_.pieces.size()) {  // ids that no token takes have no piece
    v_.pieces.resize(i + 1);
    v_.scores.resize(i + 1, -std::numeric_limits<float>::infinity());
    v_.types.resize(i + 1, PieceType::kUnused);
  }
  check(v_.pieces[i].empty() || v_.pieces[i] == content, "id ", id, " is both ", json::quote(v_.pieces[i]), " and ",
        json::quote(content));
  const TokenId known = ids_.emplace(content, id).first->second;
  check(known == id, json::quote(content), " has the ids ", known, " and ", id);

  PieceType& type = v_.types[i];
  token.id = id;
  token.own_piece = id < n_own_;
  v_.pieces[i] = content;
  if (!token.own_piece) type = PieceType::kUserDefined;
  // Nobody's text may make a control piece, whatever the file says.
  token.special = token.special || type == PieceType::kControl;
  if (token.special && !can_be_merged_to(v_, id)) type = PieceType::kControl;
  v_.added.push_back(token);
}

AddedToken AddedTokenList::read_flags(const json::ObjectReader& token) {
  AddedToken flags;
  flags.special = token.boolean("special", false);
  flags.single_word = token.boolean("single_word", false);
  flags.lstrip = token.boolean("lstrip", false);
  flags.rstrip = token.boolean("rstrip", false);
  flags.normalized = token.boolean("normalized", !flags.special);
  return flags;
}

TokenId AddedTokenList::read_id(const json::Value& value, std::string_view content, std::string_view source) {
  const Index* number = value.get<Index>();
  require(number != nullptr && *number >= 0 && *number < Vocabulary::kMaxPieces, ErrorCode::kBadFormat, source,
          ": id of ", json::quote(content), " is ", json::describe(value), ", expected an integer from 0 to ",
          Vocabulary::kMaxPieces - 1);
  return static_cast<TokenId>(*number);
}

}  // namespace mixtral
