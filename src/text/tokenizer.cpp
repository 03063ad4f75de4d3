// Texts in runs of bounded length, ids to bytes.
#include "mixtral/text/tokenizer.hpp"

#include <algorithm>
#include <cstdint>

#include "mixtral/core/error.hpp"
#include "mixtral/core/utf8.hpp"
#include "mixtral/text/stream_decoder.hpp"
#include "mixtral/text/vocabulary_files.hpp"
#include "text/added_tokens.hpp"
#include "text/bpe.hpp"

namespace mixtral {
namespace {

// The encoder uses about 150 bytes per byte of a run and counts in `int`.
constexpr std::size_t kRunBytes = 1024;  // a run ends at the first certain place after these
constexpr std::size_t kMaxRunBytes = std::size_t{1} << 24;

// Bytes of the unit that the encoder reads at the front of `text`: a character, or one bad byte.
std::size_t unit_length(std::string_view text) { return static_cast<std::size_t>(std::max(1, utf8_char_length(text))); }

// The unit as the encoder sees it, its bytes packed into a number: spaces escaped, bad bytes replaced.
std::uint64_t unit_code(std::string_view text) {
  const int length = utf8_char_length(text);
  if (length <= 0) return unit_code(kReplacementCharacter);
  if (text[0] == ' ') return unit_code(kSpaceSymbol);
  std::uint64_t code = 0;
  for (const char c : text.substr(0, static_cast<std::size_t>(length)))
    code = code << 8 | static_cast<unsigned char>(c);
  return code;
}

// Where a text may be cut without a change of its ids: between two characters that are neighbours in no piece,
// so that no token spans them. Then the parts are encoded alone, in memory that does not grow with the text.
class Cutter {
 public:
  explicit Cutter(const std::vector<std::string>& pieces) {
    for (const std::string_view piece : pieces) {
      if (piece.empty()) continue;
      for (std::size_t i = 0, n = unit_length(piece); i + n < piece.size(); i += n, n = unit_length(piece.substr(i))) {
        joined_.push_back(pair(piece.substr(i), piece.substr(i + n)));
      }
    }
    std::sort(joined_.begin(), joined_.end());
    joined_.erase(std::unique(joined_.begin(), joined_.end()), joined_.end());
  }

  // Bytes of the first part of `text`.
  std::size_t cut(std::string_view text) const {
    std::size_t i = std::min(kRunBytes, text.size());
    while (i < text.size() && (text[i] & 0xC0) == 0x80) ++i;  // only there is it certain that a unit begins
    while (i < text.size()) {
      const std::size_t next = i + unit_length(text.substr(i));
      if (next >= text.size()) break;
      if (!std::binary_search(joined_.begin(), joined_.end(), pair(text.substr(i), text.substr(next)))) return next;
      i = next;
    }
    return text.size();
  }

 private:
  static std::uint64_t pair(std::string_view left, std::string_view right) {
    return unit_code(left) << 32 | unit_code(right);
  }

  std::vector<std::uint64_t> joined_;  // sorted
};

std::string bytes_of(const Vocabulary& v, std::size_t id) {
  switch (v.types[id]) {
    case PieceType::kControl: return "";
    case PieceType::kUnknown: return v.unk_text;
    case PieceType::kByte: return {static_cast<char>(byte_of_piece(v.pieces[id]))};
    default: break;
  }
  std::string text;
  for (std::string_view rest = v.pieces[id]; !rest.empty();) {
    const bool is_space = rest.starts_with(kSpaceSymbol);
    text.push_back(is_space ? ' ' : rest[0]);
    rest.remove_prefix(is_space ? kSpaceSymbol.size() : 1);
  }
  return text;
}

}  // namespace

struct Tokenizer::State {
  explicit State(Vocabulary v)
      : vocabulary(std::move(v)), added(vocabulary), cutter(vocabulary.pieces), encoder(vocabulary) {
    bytes.reserve(vocabulary.pieces.size());
    for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) bytes.push_back(bytes_of(vocabulary, id));
    for (const AddedToken& token : vocabulary.added) {
      const auto id = static_cast<std::size_t>(token.id);
      if (token.special && vocabulary.types[id] != PieceType::kUnknown) bytes[id].clear();
    }
  }
  State(const State&) = delete;  // the encoder looks at the vocabulary

  // What stands before a part of the text: kSpaceSymbol or nothing.
  std::string_view prefix_of(std::string_view part, bool at_begin) const {
    if (part.empty() || (vocabulary.prefixed_parts == PrefixedParts::kFirst && !at_begin)) return {};
    switch (vocabulary.space_prefix) {
      case SpacePrefix::kNone: return {};
      case SpacePrefix::kAlways: return kSpaceSymbol;
      case SpacePrefix::kUnlessSpace: break;
    }
    return part.starts_with(' ') || part.starts_with(kSpaceSymbol) ? std::string_view() : kSpaceSymbol;
  }

  // A part in runs of bounded length; behind `prefix`. Nothing joins what `ids` hold already.
  void append_part(std::string_view prefix, std::string_view part, std::vector<TokenId>& ids) const {
    std::vector<TokenId> more;
    std::size_t size = cutter.cut(part);
    append_run(prefix.empty() ? part.substr(0, size) : str(prefix, part.substr(0, size)), more);
    for (part.remove_prefix(size); !part.empty(); part.remove_prefix(size)) {
      size = cutter.cut(part);
      append_run(part.substr(0, size), more);
    }
    ids.insert(ids.end(), more.begin(), more.end());
  }

  void append_run(std::string_view run, std::vector<TokenId>& ids) const {
    require(run.size() <= kMaxRunBytes, "encode: ", run.size(),
            " bytes in which no place is certain to end a token, at most ", kMaxRunBytes);
    encoder.encode(run, ids);
  }

  // The text between two tokens that are found as they stand.
  void append_between(std::string_view part, bool at_begin, SpecialTokens special, std::vector<TokenId>& ids) const {
    if (!added.has_normalized()) return append_part(prefix_of(part, at_begin), part, ids);
    const bool after = !vocabulary.normalizes_spaces;
    const std::string text = after ? std::string(part) : str(prefix_of(part, at_begin), normalise(part));
    for (const TextPart& p : added.cut_normalized(text, special)) {
      if (p.token != nullptr) {
        ids.push_back(p.token->id);
      } else {
        append_part(after ? prefix_of(p.text, at_begin && p.offset == 0) : "", p.text, ids);
      }
    }
  }

  // `at_begin`: nothing stands before the text.
  std::vector<TokenId> encode(std::string_view text, SpecialTokens special, bool at_begin) const {
    if (vocabulary.prefixed_parts == PrefixedParts::kText) return encode_prefixed(text, special, at_begin);
    std::vector<TokenId> ids;
    if (vocabulary.added.empty()) {
      if (!text.empty()) append_part(prefix_of(text, at_begin), text, ids);
      return ids;
    }
    for (const TextPart& part : added.cut(text, special)) {
      if (part.token != nullptr) {
        ids.push_back(part.token->id);
      } else {
        append_between(part.text, at_begin && part.offset == 0, special, ids);
      }
    }
    return ids;
  }

  // LlamaTokenizer.tokenize() of transformers with `legacy: false`: the prefix stands before the text is cut, and goes
  // if all that follows it up to a named token is nothing.
  std::vector<TokenId> encode_prefixed(std::string_view text, SpecialTokens special, bool at_begin) const {
    std::vector<TokenId> ids;
    if (text.empty()) return ids;
    const bool prefixed = at_begin && vocabulary.space_prefix != SpacePrefix::kNone;
    const std::vector<TextPart> parts = added.cut(str(prefixed ? kSpaceSymbol : "", text), special);
    for (const TextPart& part : parts) {
      const bool is_bare = prefixed && part.offset == 0 && part.text == kSpaceSymbol;
      if (part.token != nullptr) {
        ids.push_back(part.token->id);
      } else if (!is_bare || parts.size() == 1 || parts[1].token == nullptr || !parts[1].token->named) {
        append_part("", part.text, ids);
      }
    }
    return ids;
  }

  Vocabulary vocabulary;
  AddedTokens added;
  Cutter cutter;
  BpeEncoder encoder;
  std::vector<std::string> bytes;  // [size]: token_bytes()
};

Tokenizer::Tokenizer(Vocabulary vocabulary) {
  vocabulary.validate();
  state_ = std::make_shared<const State>(std::move(vocabulary));
}

Tokenizer Tokenizer::load(const std::filesystem::path& model) { return Tokenizer(load_vocabulary(model)); }

std::vector<TokenId> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
  return state_->encode(text, special, true);
}

std::vector<TokenId> Tokenizer::encode_more(std::string_view text, SpecialTokens special) const {
  return state_->encode(text, special, false);
}

std::string Tokenizer::decode(std::span<const TokenId> ids) const {
  StreamDecoder decoder(*this);
  std::string text;
  for (const TokenId id : ids) text += decoder.push(id);
  return text += decoder.flush();
}

std::string_view Tokenizer::token_bytes(TokenId id) const {
  const Vocabulary& v = state_->vocabulary;
  require(id >= 0 && id < std::max(v.size(), v.n_ids), "token id ", id, " is outside the vocabulary of ",
          std::max(v.size(), v.n_ids));
  return id < v.size() ? state_->bytes[static_cast<std::size_t>(id)] : std::string_view();
}

const Vocabulary& Tokenizer::vocabulary() const noexcept { return state_->vocabulary; }

}  // namespace mixtral
