// Hugging Face's tokenizer.json. Only what a SentencePiece BPE model turns into is accepted; the merges become scores,
// so that there is one tokenizer behind all files.
#include <algorithm>
#include <limits>
#include <unordered_map>
#include <unordered_set>

#include "core/json.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/utf8.hpp"
#include "mixtral/text/vocabulary_files.hpp"
#include "text/added_token_list.hpp"
#include "text/tokenizer_json.hpp"

namespace mixtral {
namespace {

using json::ObjectReader;

constexpr std::size_t kMaxMerges = 1u << 24;  // ranks are exact as float up to here
constexpr float kNeverMerged = -std::numeric_limits<float>::infinity();

// Reads one file's document; every message begins with the file's name.
class TokenizerJson {
 public:
  TokenizerJson(const json::Value& root, std::string_view source)
      : source_(source), root_(root, source_), model_(root_.at("model"), str(source_, ": model")) {}

  Vocabulary read() {
    check_model_options();
    read_pieces();
    read_merges();
    read_rules(v_);
    read_post_processor();
    v_.validate(source_);
    return std::move(v_);
  }

  // The file's added tokens, and its rules about them, for the pieces of another file of the same model.
  void read_added(Vocabulary& v) {
    read_vocab();
    require(v_.size() == v.size() && v_.pieces == v.pieces, ErrorCode::kUnsupported, source_,
            ": not of the same pieces as the SentencePiece model beside it");
    read_rules(v);
  }

 private:
  template <class... Parts>
  void check(bool ok, const Parts&... parts) const {
    require(ok, ErrorCode::kBadFormat, source_, ": ", parts...);
  }

  // For parts of the pipeline that are legal, but not this library's.
  static void supported(bool ok, const ObjectReader& in, std::string_view key) {
    if (ok) return;
    constexpr std::size_t kShown = 200;
    const json::Value* value = in.find(key);
    fail(ErrorCode::kUnsupported, in.where(), ": ", key,
         " is not supported: ", value == nullptr ? "null" : json::dump(*value).substr(0, kShown));
  }

  static bool is(const ObjectReader& in, std::string_view key, std::string_view text) {
    const json::Value* value = in.find(key);
    return value != nullptr && value->get<std::string>() != nullptr && *value->get<std::string>() == text;
  }

  void check_model_options() const {
    supported(is(model_, "type", "BPE"), model_, "type");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      supported(model_.find(key) == nullptr || is(model_, key, ""), model_, key);
    }
    supported(model_.optional_number("dropout", 0, 1).value_or(0) == 0, model_, "dropout");
    supported(!model_.boolean("ignore_merges", false), model_, "ignore_merges");
    supported(model_.boolean("byte_fallback", false) || model_.boolean("fuse_unk", false), model_, "fuse_unk");
  }

  void read_vocab() {
    for (const json::Member& piece : model_.object("vocab")) {
      set_piece(AddedTokenList::read_id(piece.value, piece.key, source_), piece.key);
    }
    for (std::size_t i = 0; i < v_.pieces.size(); ++i) {
      check(!v_.pieces[i].empty(), "no piece has id ", i, ", but ids go up to ", v_.pieces.size() - 1);
    }
  }

  void read_pieces() {
    read_vocab();
    const bool byte_fallback = model_.boolean("byte_fallback", false);
    for (std::size_t i = 0; i < v_.pieces.size(); ++i) {
      if (byte_fallback && byte_of_piece(v_.pieces[i]) >= 0) v_.types[i] = PieceType::kByte;
      ids_.emplace(v_.pieces[i], static_cast<TokenId>(i));
    }
    const std::string& unknown = model_.string("unk_token");
    v_.unk_id = find(unknown);
    check(v_.unk_id >= 0, "unk_token ", json::quote(unknown), " is no piece");
    type(v_.unk_id) = PieceType::kUnknown;
  }

  // The file's library gives a token that is no piece the next id, whatever the file says.
  void read_added_tokens(Vocabulary& v) const {
    AddedTokenList list(v, source_);
    v.added_rules = AddedTokenRules::kTokenizers;
    const json::Array* const added = root_.optional_array("added_tokens");
    if (added == nullptr) return;
    for (const json::Value& item : *added) {
      const ObjectReader token(item, str(source_, ": added_tokens"));
      const std::string& content = token.string("content");
      const TokenId written = AddedTokenList::read_id(token.at("id"), content, source_);
      const bool is_piece = list.find(content) >= 0;
      const TokenId id = is_piece ? written : static_cast<TokenId>(v.size());
      if (id != written) {
        v.notes.push_back(str(source_, ": added token ", json::quote(content), " has id ", id,
                              ", the next one, as in Hugging Face's tokenizers; the file says ", written));
      }
      list.add(content, id, AddedTokenList::read_flags(token));
    }
  }

  void read_rules(Vocabulary& v) const {
    read_spaces(v);
    check_decoder(v);
    read_added_tokens(v);
  }

  void set_piece(TokenId at, const std::string& piece) {
    const auto i = static_cast<std::size_t>(at);
    check(!piece.empty(), "piece ", at, " is empty");
    if (i >= v_.pieces.size()) {
      v_.pieces.resize(i + 1);
      v_.types.resize(i + 1, PieceType::kNormal);
    }
    check(v_.pieces[i].empty() || v_.pieces[i] == piece, "id ", at, " is both ", json::quote(v_.pieces[i]), " and ",
          json::quote(piece));
    v_.pieces[i] = piece;
  }

  TokenId find(std::string_view piece) const {
    const auto found = ids_.find(piece);
    return found == ids_.end() ? -1 : found->second;
  }
  PieceType& type(TokenId at) { return v_.types[static_cast<std::size_t>(at)]; }

  // A merge is "left right" in older files, ["left", "right"] in newer ones.
  std::pair<std::string_view, std::string_view> merge(const json::Value& value, std::size_t rank) const {
    if (const auto* parts = value.get<json::Array>()) {
      const bool two = parts->size() == 2;
      const auto* left = two ? parts->front().get<std::string>() : nullptr;
      const auto* right = two ? parts->back().get<std::string>() : nullptr;
      check(left != nullptr && right != nullptr, "merge ", rank, ": expected two strings");
      return {*left, *right};
    }
    const auto* text = value.get<std::string>();
    check(text != nullptr, "merge ", rank, " is ", json::describe(value), ", expected a string or two");
    const std::string_view both = *text;
    const std::size_t space = both.find(' ');
    check(space != both.npos && both.find(' ', space + 1) == both.npos, "merge ", rank, ": expected one space in ",
          json::quote(both));
    return {both.substr(0, space), both.substr(space + 1)};
  }

  void read_merges() {
    const json::Array* list = model_.optional_array("merges");
    if (list == nullptr) model_.fail_missing("merges");
    const json::Array& merges = *list;
    check(merges.size() <= kMaxMerges, "model: merges has ", merges.size(), " items, expected at most ", kMaxMerges);
    v_.scores.assign(v_.pieces.size(), kNeverMerged);
    std::unordered_set<std::uint64_t> known;
    for (std::size_t rank = 0; rank < merges.size(); ++rank) {
      const auto [left, right] = merge(merges[rank], rank);
      const TokenId left_id = find(left), right_id = find(right), both_id = find(str(left, right));
      check(left_id >= 0 && right_id >= 0 && both_id >= 0, "merge ", rank, ": ", json::quote(left), ", ",
            json::quote(right), " or the two together are no piece");
      known.insert(pair(left_id, right_id));
      float& score = v_.scores[static_cast<std::size_t>(both_id)];
      if (score == kNeverMerged) score = -static_cast<float>(rank);
    }
    for (TokenId i = 0; i < v_.size(); ++i) check_splits(i, known);
  }

  static std::uint64_t pair(TokenId left, TokenId right) {
    return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
  }

  // SentencePiece merges any two neighbours that make a piece; Hugging Face only the pairs it lists. They agree if
  // every pair that can arise is listed, as in all files that were made from a SentencePiece model.
  void check_splits(TokenId whole, const std::unordered_set<std::uint64_t>& known) const {
    if (v_.scores[static_cast<std::size_t>(whole)] == kNeverMerged) return;
    const std::string_view piece = v_.pieces[static_cast<std::size_t>(whole)];
    for (std::size_t i = 1; i < piece.size(); ++i) {
      if ((piece[i] & 0xC0) == 0x80) continue;  // inside a character
      const TokenId left = find(piece.substr(0, i)), right = find(piece.substr(i));
      if (!can_arise(left) || !can_arise(right)) continue;
      require(known.contains(pair(left, right)), ErrorCode::kUnsupported, source_, ": piece ", whole, " ",
              json::quote(piece), " has no merge of ", json::quote(piece.substr(0, i)), " and ",
              json::quote(piece.substr(i)), ": not made from a SentencePiece model");
    }
  }

  // Whether the piece can stand alone while a text is being merged.
  bool can_arise(TokenId at) const {
    if (at < 0) return false;
    const auto i = static_cast<std::size_t>(at);
    const bool is_character = static_cast<std::size_t>(utf8_char_length(v_.pieces[i])) == v_.pieces[i].size();
    return v_.types[i] == PieceType::kNormal && (is_character || v_.scores[i] != kNeverMerged);
  }

  // Older files escape spaces in the normalizer, newer ones in the pre-tokenizer.
  void read_spaces(Vocabulary& v) const {
    static const std::string kPrepend = step(R"({"type": "Prepend", "prepend": "\u2581"})");
    static const std::string kReplace = step(R"({"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"})");
    v.prefixed_parts = PrefixedParts::kEvery;
    v.normalizes_spaces = root_.find("normalizer") != nullptr;
    if (!v.normalizes_spaces) return read_metaspace(v);
    supported(root_.find("pre_tokenizer") == nullptr, root_, "pre_tokenizer");
    const std::vector<std::string> found = steps("normalizer", "normalizers");
    v.space_prefix = found == std::vector{kPrepend, kReplace} ? SpacePrefix::kAlways : SpacePrefix::kNone;
    supported(v.space_prefix == SpacePrefix::kAlways || found == std::vector{kReplace}, root_, "normalizer");
  }

  void read_metaspace(Vocabulary& v) const {
    const std::optional<ObjectReader> found = root_.optional_object("pre_tokenizer");
    supported(found && is(*found, "type", "Metaspace") && is(*found, "replacement", kSpaceSymbol) &&
                  !found->boolean("split", true),
              root_, "pre_tokenizer");
    const bool first = is(*found, "prepend_scheme", "first"), every = is(*found, "prepend_scheme", "always");
    supported(first || every || is(*found, "prepend_scheme", "never"), root_, "pre_tokenizer");
    v.space_prefix = first || every ? SpacePrefix::kUnlessSpace : SpacePrefix::kNone;
    if (first) v.prefixed_parts = PrefixedParts::kFirst;
  }

  // One step of a pipeline as a text to compare.
  static std::string step(std::string_view text) { return json::dump(json::parse(text, "step")); }

  // The steps of a "Sequence", or the one step that stands alone.
  std::vector<std::string> steps(const char* what, const char* key) const {
    const std::optional<ObjectReader> found = root_.optional_object(what);
    if (!found) return {};
    if (!is(*found, "type", "Sequence")) return {json::dump(root_.at(what))};
    std::vector<std::string> texts;
    if (const json::Array* list = found->optional_array(key)) {
      for (const json::Value& item : *list) texts.push_back(json::dump(item));
    }
    return texts;
  }

  void check_decoder(const Vocabulary& v) const {
    std::vector<std::string> expected = {
        step(R"({"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "})"),
        step(R"({"type": "ByteFallback"})"), step(R"({"type": "Fuse"})")};
    if (v.space_prefix != SpacePrefix::kNone) {
      expected.push_back(step(R"({"type": "Strip", "content": " ", "start": 1, "stop": 0})"));
    }
    supported(steps("decoder", "decoders") == expected, root_, "decoder");
  }

  // What goes in front of a text is the BOS. A special token may be any of the vocabulary.
  void read_post_processor() {
    v_.bos_id = special("<s>");
    v_.eos_id = special("</s>");
    const std::optional<ObjectReader> post = root_.optional_object("post_processor");
    if (!post) return;
    const json::Array* single = post->optional_array("single");
    supported(is(*post, "type", "TemplateProcessing") && single != nullptr && !single->empty(), root_,
              "post_processor");
    const ObjectReader first(single->front(), str(post->where(), ": single[0]"));
    const std::optional<ObjectReader> token = first.optional_object("SpecialToken");
    if (!token) return;
    const std::string& bos = token->string("id");
    v_.bos_id = special(bos);
    check(v_.bos_id >= 0, "post_processor: ", json::quote(bos), " is no special token");
    v_.add_bos = true;
  }

  // One of the added tokens, whatever its flags.
  TokenId special(std::string_view piece) const {
    const TokenId at = v_.find(piece);
    const bool added = std::any_of(v_.added.begin(), v_.added.end(), [&](const AddedToken& t) { return t.id == at; });
    return added ? at : -1;
  }

  std::string source_;
  ObjectReader root_, model_;
  Vocabulary v_;
  std::unordered_map<std::string_view, TokenId> ids_;  // views into v_.pieces, complete by then
};

}  // namespace

Vocabulary parse_tokenizer_json(std::string_view text, std::string_view source) {
  const json::Value root = json::parse(text, source);
  return TokenizerJson(root, source).read();
}

void read_added_tokens(std::string_view text, std::string_view source, Vocabulary& v) {
  const json::Value root = json::parse(text, source);
  TokenizerJson(root, source).read_added(v);
}

}  // namespace mixtral
