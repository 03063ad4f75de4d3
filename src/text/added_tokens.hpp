// Cuts a text at added tokens, by the rules of the library that the vocabulary's file was made for.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mixtral/text/tokenizer.hpp"
#include "text/piece_matcher.hpp"

namespace mixtral {

// A part of a text: an added token, or what stands between two of them.
struct TextPart {
  std::string text;
  const AddedToken* token = nullptr;  // null: text to be encoded
  std::size_t offset = 0;             // where it stood in the whole text
};

class AddedTokens {
 public:
  // `vocabulary` must be valid and outlive it.
  explicit AddedTokens(const Vocabulary& vocabulary);

  // The parts of a text as it is given, none empty: tokens that are not `normalized`.
  std::vector<TextPart> cut(std::string_view text, SpecialTokens special) const;

  // The parts of what lies between those, once it is normalised: tokens that are `normalized`.
  bool has_normalized() const noexcept { return !normalized_.matcher.empty(); }
  std::vector<TextPart> cut_normalized(std::string_view text, SpecialTokens special) const;

 private:
  struct Set {
    PieceMatcher matcher;
    std::unordered_map<std::string, const AddedToken*> tokens;  // by the text that is looked for
  };
  struct Match {
    std::size_t begin, end;
    const AddedToken* token;
  };

  std::vector<Match> find(const Set& set, std::string_view text, SpecialTokens special) const;
  static std::vector<TextPart> cut_by_tokenizers(std::string_view text, const std::vector<Match>& matches);
  static std::vector<TextPart> cut_by_transformers(std::string_view text, const std::vector<Match>& matches);

  const AddedTokenRules rules_;
  Set plain_, normalized_;
};

// The text as the merges see it: spaces become kSpaceSymbol, each byte that is not UTF-8 U+FFFD.
std::string normalise(std::string_view text);

}  // namespace mixtral
