#include "text/added_tokens.hpp"

#include <algorithm>
#include <utility>

#include "mixtral/core/utf8.hpp"
#include "text/word_characters.hpp"

namespace mixtral {
namespace {

// The character at the front of `text`, or U+FFFD. `text` is not empty.
char32_t first_character(std::string_view text) {
  const int length = utf8_char_length(text);
  if (length <= 0) return 0xFFFD;
  const auto byte = [&](int i) { return static_cast<unsigned char>(text[static_cast<std::size_t>(i)]); };
  if (length == 1) return byte(0);
  char32_t value = byte(0) & (0x7Fu >> length);
  for (int i = 1; i < length; ++i) value = value << 6 | (byte(i) & 0x3Fu);
  return value;
}

// Bytes of the character at the end of `text`. `text` is not empty.
std::size_t last_length(std::string_view text) {
  for (std::size_t n = 1; n <= std::min<std::size_t>(4, text.size()); ++n) {
    if (utf8_char_length(text.substr(text.size() - n)) == static_cast<int>(n)) return n;
  }
  return 1;
}

char32_t last_character(std::string_view text) { return first_character(text.substr(text.size() - last_length(text))); }

bool is_word(char32_t c) {
  if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || c == '_' || (c >= 'a' && c <= 'z');
  const auto* const range = std::lower_bound(std::begin(kWordCharacters), std::end(kWordCharacters), c,
                                             [](const CharacterRange& r, char32_t x) { return r.last < x; });
  return range != std::end(kWordCharacters) && c >= range->first;
}

// Unicode's White_Space; Python counts four separators of ASCII, too.
bool is_space(char32_t c, AddedTokenRules rules) {
  if (c >= 0x1C && c <= 0x1F) return rules == AddedTokenRules::kTransformers;
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

// Bytes of white space at the front, and at the end.
std::size_t space_in_front(std::string_view text, AddedTokenRules rules) {
  std::size_t n = 0;
  while (n < text.size() && is_space(first_character(text.substr(n)), rules)) {
    n += static_cast<std::size_t>(std::max(1, utf8_char_length(text.substr(n))));
  }
  return n;
}
std::size_t space_at_end(std::string_view text, AddedTokenRules rules) {
  const std::size_t size = text.size();
  while (!text.empty() && is_space(last_character(text), rules)) text.remove_suffix(last_length(text));
  return size - text.size();
}

bool is_wanted(const AddedToken& token, SpecialTokens special) {
  if (!token.special || special == SpecialTokens::kAll) return true;
  return special == SpecialTokens::kAdded && !token.own_piece;
}

}  // namespace

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

AddedTokens::AddedTokens(const Vocabulary& vocabulary) : rules_(vocabulary.added_rules) {
  const auto add = [](Set& set, const std::string& text, const AddedToken& token, std::vector<std::string>& texts) {
    if (set.tokens.emplace(text, &token).second) texts.push_back(text);
  };
  std::vector<std::string> plain, normalized;
  for (const AddedToken& token : vocabulary.added) {
    const std::string& piece = vocabulary.pieces[static_cast<std::size_t>(token.id)];
    if (!token.normalized || rules_ == AddedTokenRules::kTransformers) {
      add(plain_, piece, token, plain);
    } else if (!vocabulary.normalizes_spaces) {
      add(normalized_, piece, token, normalized);
    } else {
      const bool prefix = vocabulary.space_prefix == SpacePrefix::kAlways;
      add(normalized_, (prefix ? std::string(kSpaceSymbol) : "") + normalise(piece), token, normalized);
    }
  }
  plain_.matcher = PieceMatcher(std::move(plain));
  normalized_.matcher = PieceMatcher(std::move(normalized));
}

// The leftmost, of several that begin there the longest. One that the caller does not want has still been found: what
// it covers is no other token's.
std::vector<AddedTokens::Match> AddedTokens::find(const Set& set, std::string_view text, SpecialTokens special) const {
  std::vector<Match> matches;
  for (std::size_t at = set.matcher.next_candidate(text, 0); at < text.size();
       at = set.matcher.next_candidate(text, at)) {
    const std::size_t size = set.matcher.match(text.substr(at));
    if (size == 0) {
      ++at;
      continue;
    }
    const AddedToken* token = set.tokens.at(std::string(text.substr(at, size)));
    if (is_wanted(*token, special)) matches.push_back({at, at + size, token});
    at += size;
  }
  return matches;
}

std::vector<TextPart> AddedTokens::cut(std::string_view text, SpecialTokens special) const {
  const std::vector<Match> matches = find(plain_, text, special);
  return rules_ == AddedTokenRules::kTokenizers ? cut_by_tokenizers(text, matches) : cut_by_transformers(text, matches);
}

std::vector<TextPart> AddedTokens::cut_normalized(std::string_view text, SpecialTokens special) const {
  return cut_by_tokenizers(text, find(normalized_, text, special));
}

// AddedVocabulary::find_matches() of https://github.com/huggingface/tokenizers.
std::vector<TextPart> AddedTokens::cut_by_tokenizers(std::string_view text, const std::vector<Match>& matches) {
  constexpr AddedTokenRules kRules = AddedTokenRules::kTokenizers;
  std::vector<TextPart> parts;
  std::size_t done = 0, space_until = 0;  // the end of the last white space that a token took along
  for (const Match& match : matches) {
    std::size_t begin = match.begin, end = match.end;
    const std::string_view before = text.substr(0, begin), behind = text.substr(end);
    if (match.token->single_word && ((!before.empty() && is_word(last_character(before))) ||
                                     (!behind.empty() && is_word(first_character(behind))))) {
      continue;
    }
    if (match.token->lstrip && begin > done) begin -= space_at_end(text.substr(done, begin - done), kRules);
    if (match.token->rstrip) {
      if (end >= space_until) space_until = end + space_in_front(behind, kRules);
      end = space_until;
    }
    if (done < begin) parts.push_back({std::string(text.substr(done, begin - done)), nullptr, done});
    parts.push_back({"", match.token, begin});
    done = end;
  }
  if (done < text.size()) parts.push_back({std::string(text.substr(done)), nullptr, done});
  return parts;
}

// PreTrainedTokenizer.tokenize() of https://github.com/huggingface/transformers: each token looks at its neighbours as
// they are by then, and one that is no single word becomes a part of one of them.
std::vector<TextPart> AddedTokens::cut_by_transformers(std::string_view text, const std::vector<Match>& matches) {
  constexpr AddedTokenRules kRules = AddedTokenRules::kTransformers;
  std::vector<TextPart> parts;
  std::size_t done = 0;
  for (const Match& match : matches) {
    if (done < match.begin) parts.push_back({std::string(text.substr(done, match.begin - done)), nullptr, done});
    parts.push_back({std::string(text.substr(match.begin, match.end - match.begin)), match.token, match.begin});
    done = match.end;
  }
  if (done < text.size()) parts.push_back({std::string(text.substr(done)), nullptr, done});

  for (std::size_t i = 0; i < parts.size(); ++i) {
    const AddedToken* const token = parts[i].token;
    if (token == nullptr) continue;
    TextPart *const left = i > 0 ? &parts[i - 1] : nullptr, *const right =
                                                                i + 1 < parts.size() ? &parts[i + 1] : nullptr;
    const bool joins_left = token->single_word && left != nullptr && !left->text.empty() && left->text.back() != ' ';
    const bool joins_right = token->single_word && right != nullptr && right->text.front() != ' ';
    if (token->rstrip && right != nullptr) {
      if (const std::size_t n = space_in_front(right->text, kRules); n > 0) {
        right->text.erase(0, n);
        right->token = nullptr;
      }
    }
    if (token->lstrip && left != nullptr) {
      if (const std::size_t n = space_at_end(left->text, kRules); n > 0) {
        left->text.resize(left->text.size() - n);
        left->token = nullptr;
      }
    }
    if (joins_left) {
      left->text += parts[i].text;
      left->token = nullptr;
    } else if (joins_right) {
      right->text.insert(0, parts[i].text);
      right->token = nullptr;
    }
    if (joins_left || joins_right) parts[i] = {"", nullptr, parts[i].offset};
  }
  std::erase_if(parts, [](const TextPart& part) { return part.token == nullptr && part.text.empty(); });
  return parts;
}

}  // namespace mixtral
