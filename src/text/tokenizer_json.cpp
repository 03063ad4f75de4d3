// Hugging Face's tokenizer.json and tokenizer_config.json. Only what a SentencePiece BPE model turns into is
// accepted; the merges become scores, so that there is one tokenizer behind all files.
#include <algorithm>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/core/utf8.hpp"
#include "mixtral/text/vocabulary_files.hpp"

namespace mixtral {
namespace {

using nlohmann::json;

constexpr int kMaxDepth = 32;                    // the format needs about 6
constexpr std::size_t kMaxMerges = 1u << 24;     // ranks are exact as float up to here
constexpr Index kMaxFileBytes = Index{1} << 27;  // the largest vocabularies in use take a quarter
constexpr float kNeverMerged = -std::numeric_limits<float>::infinity();

// Parses strictly: bounded depth, no key twice in one object.
json parse_json(std::string_view text, std::string_view source) {
  std::vector<std::set<std::string, std::less<>>> keys;  // of the objects that are open
  const auto check = [&](int depth, json::parse_event_t event, json& parsed) {
    require(depth <= kMaxDepth, ErrorCode::kBadFormat, source, ": nested deeper than ", kMaxDepth);
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key) {
      const std::string& key = parsed.get_ref<const std::string&>();
      require(keys.back().insert(key).second, ErrorCode::kBadFormat, source, ": key \"", key, "\" appears twice");
    }
    return true;
  };
  try {
    return json::parse(text, check);
  } catch (const json::exception& error) {
    fail(ErrorCode::kBadFormat, source, ": ", error.what());
  }
}

// The member `key` of an object, null where absent.
const json& member(const json& object, const char* key) {
  static const json null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

// Reads one file's document; every message begins with the file's name.
class TokenizerJson {
 public:
  TokenizerJson(const json& root, std::string_view source) : root_(root), source_(source) {}

  Vocabulary read() {
    check(root_.is_object(), "expected an object");
    model_ = &member(root_, "model");
    check(model_->is_object(), "model: expected an object");
    check_model_options();
    read_pieces();
    read_merges();
    v_.space_prefix = space_prefix();
    check_decoder();
    read_post_processor();
    v_.validate(source_);
    return std::move(v_);
  }

 private:
  template <class... Parts>
  void check(bool ok, const Parts&... parts) const {
    require(ok, ErrorCode::kBadFormat, source_, ": ", parts...);
  }

  // For parts of the pipeline that are legal, but not this library's.
  void supported(bool ok, const char* key, const json& value) const {
    if (ok) return;
    constexpr std::size_t kShown = 200;
    const std::string text = value.dump(-1, ' ', true).substr(0, kShown);
    fail(ErrorCode::kUnsupported, source_, ": ", key, " is not supported: ", text);
  }

  bool flag(const json& object, const char* key) const {
    const json& value = member(object, key);
    check(value.is_boolean() || value.is_null(), key, ": expected true or false");
    return value.is_boolean() && value.get<bool>();
  }

  const std::string& text(const json& value, const char* what) const {
    check(value.is_string(), what, ": expected a string");
    return value.get_ref<const std::string&>();
  }

  TokenId id(const json& value, const std::string& piece) const {
    check(value.is_number_integer() && value >= 0 && value < Vocabulary::kMaxPieces, "id of \"", piece,
          "\": expected an integer from 0 to ", Vocabulary::kMaxPieces - 1);
    return value.get<TokenId>();
  }

  void check_model_options() const {
    supported(member(*model_, "type") == "BPE", "model.type", member(*model_, "type"));
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      supported(member(*model_, key).is_null() || member(*model_, key) == "", key, member(*model_, key));
    }
    supported(member(*model_, "dropout").is_null() || member(*model_, "dropout") == 0, "dropout",
              member(*model_, "dropout"));
    supported(!flag(*model_, "ignore_merges"), "ignore_merges", member(*model_, "ignore_merges"));
    supported(flag(*model_, "byte_fallback") || flag(*model_, "fuse_unk"), "fuse_unk", member(*model_, "fuse_unk"));
  }

  void read_pieces() {
    const json& vocab = member(*model_, "vocab");
    check(vocab.is_object(), "model.vocab: expected an object");
    for (const auto& [piece, number] : vocab.items()) set_piece(id(number, piece), piece, PieceType::kNormal);
    const json& added = member(root_, "added_tokens");
    check(added.is_array() || added.is_null(), "added_tokens: expected an array");
    for (const json& token : added) read_added_token(token);
    for (std::size_t i = 0; i < v_.pieces.size(); ++i) {
      check(!v_.pieces[i].empty(), "no piece has id ", i, ", but ids go up to ", v_.pieces.size() - 1);
      if (flag(*model_, "byte_fallback") && byte_of_piece(v_.pieces[i]) >= 0) v_.types[i] = PieceType::kByte;
      ids_.emplace(v_.pieces[i], static_cast<TokenId>(i));
    }
    const std::string& unknown = text(member(*model_, "unk_token"), "model.unk_token");
    v_.unk_id = find(unknown);
    check(v_.unk_id >= 0, "unk_token \"", unknown, "\" is no piece");
    type(v_.unk_id) = PieceType::kUnknown;
  }

  void read_added_token(const json& token) {
    check(token.is_object(), "added_tokens: expected objects");
    const std::string& piece = text(member(token, "content"), "added_tokens: content");
    const bool special = flag(token, "special");
    for (const char* key : {"lstrip", "rstrip", "single_word"}) supported(special || !flag(token, key), key, token);
    set_piece(id(member(token, "id"), piece), piece, special ? PieceType::kControl : PieceType::kUserDefined);
  }

  void set_piece(TokenId at, const std::string& piece, PieceType piece_type) {
    const auto i = static_cast<std::size_t>(at);
    check(!piece.empty(), "piece ", at, " is empty");
    if (i >= v_.pieces.size()) {
      v_.pieces.resize(i + 1);
      v_.types.resize(i + 1, PieceType::kNormal);
    }
    check(v_.pieces[i].empty() || v_.pieces[i] == piece, "id ", at, " is both \"", v_.pieces[i], "\" and \"", piece,
          "\"");
    v_.pieces[i] = piece;
    v_.types[i] = piece_type;
  }

  TokenId find(std::string_view piece) const {
    const auto found = ids_.find(piece);
    return found == ids_.end() ? -1 : found->second;
  }
  PieceType& type(TokenId at) { return v_.types[static_cast<std::size_t>(at)]; }

  // A merge is "left right" in older files, ["left", "right"] in newer ones.
  std::pair<std::string_view, std::string_view> merge(const json& value, std::size_t rank) const {
    if (value.is_array()) {
      check(value.size() == 2 && value[0].is_string() && value[1].is_string(), "merge ", rank,
            ": expected two strings");
      return {value[0].get_ref<const std::string&>(), value[1].get_ref<const std::string&>()};
    }
    check(value.is_string(), "merge ", rank, ": expected a string or two");
    const std::string_view both = value.get_ref<const std::string&>();
    const std::size_t space = both.find(' ');
    check(space != both.npos && both.find(' ', space + 1) == both.npos, "merge ", rank, ": expected one space in \"",
          both, "\"");
    return {both.substr(0, space), both.substr(space + 1)};
  }

  void read_merges() {
    const json& merges = member(*model_, "merges");
    check(merges.is_array() && merges.size() <= kMaxMerges, "model.merges: expected an array of at most ", kMaxMerges);
    v_.scores.assign(v_.pieces.size(), kNeverMerged);
    std::unordered_set<std::uint64_t> known;
    for (std::size_t rank = 0; rank < merges.size(); ++rank) {
      const auto [left, right] = merge(merges[rank], rank);
      const TokenId left_id = find(left), right_id = find(right), both_id = find(str(left, right));
      check(left_id >= 0 && right_id >= 0 && both_id >= 0, "merge ", rank, ": \"", left, "\", \"", right,
            "\" or the two together are no piece");
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
      require(known.contains(pair(left, right)), ErrorCode::kUnsupported, source_, ": piece ", whole, " \"", piece,
              "\" has no merge of \"", piece.substr(0, i), "\" and \"", piece.substr(i),
              "\": not made from a SentencePiece model");
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
  SpacePrefix space_prefix() const {
    static const json kPrepend = {{"type", "Prepend"}, {"prepend", kSpaceSymbol}};
    static const json kReplace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpaceSymbol}};
    const json& normalizer = member(root_, "normalizer");
    const json& pre_tokenizer = member(root_, "pre_tokenizer");
    if (normalizer.is_null()) return metaspace_prefix(pre_tokenizer);
    supported(pre_tokenizer.is_null(), "pre_tokenizer", pre_tokenizer);
    const json steps = member_steps(normalizer, "normalizer", "normalizers");
    if (steps == json::array({kPrepend, kReplace})) return SpacePrefix::kAlways;
    supported(steps == json::array({kReplace}), "normalizer", normalizer);
    return SpacePrefix::kNone;
  }

  SpacePrefix metaspace_prefix(const json& step) const {
    supported(step.is_object() && member(step, "type") == "Metaspace" && member(step, "replacement") == kSpaceSymbol &&
                  member(step, "split") == false,
              "pre_tokenizer", step);
    const json& scheme = member(step, "prepend_scheme");
    if (scheme == "always" || scheme == "first") return SpacePrefix::kUnlessSpace;
    supported(scheme == "never", "pre_tokenizer", step);
    return SpacePrefix::kNone;
  }

  // The steps of a "Sequence", or the one step that stands alone.
  json member_steps(const json& step, const char* what, const char* key) const {
    check(step.is_object(), what, ": expected an object");
    return member(step, "type") == "Sequence" ? member(step, key) : json::array({step});
  }

  void check_decoder() const {
    static const json kReplace = {{"type", "Replace"}, {"pattern", {{"String", kSpaceSymbol}}}, {"content", " "}};
    json expected = json::array({kReplace, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
    if (v_.space_prefix != SpacePrefix::kNone) {
      expected.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    }
    const json& decoder = member(root_, "decoder");
    supported(member_steps(decoder, "decoder", "decoders") == expected, "decoder", decoder);
  }

  // What goes in front of a text is the BOS.
  void read_post_processor() {
    v_.bos_id = special("<s>");
    v_.eos_id = special("</s>");
    const json& post = member(root_, "post_processor");
    if (post.is_null()) return;
    check(post.is_object(), "post_processor: expected an object");
    const json& single = member(post, "single");
    supported(member(post, "type") == "TemplateProcessing" && single.is_array() && !single.empty(), "post_processor",
              post);
    const json& first = single[0].is_object() ? member(single[0], "SpecialToken") : single[0];
    if (!first.is_object()) return;
    const std::string& bos = text(member(first, "id"), "post_processor: SpecialToken: id");
    v_.bos_id = special(bos);
    check(v_.bos_id >= 0, "post_processor: \"", bos, "\" is no special token");
    v_.add_bos = true;
  }

  TokenId special(std::string_view piece) const {
    const TokenId at = find(piece);
    return at >= 0 && v_.types[static_cast<std::size_t>(at)] == PieceType::kControl ? at : -1;
  }

  const json& root_;
  const json* model_ = nullptr;
  std::string_view source_;
  Vocabulary v_;
  std::unordered_map<std::string_view, TokenId> ids_;  // views into v_.pieces, complete by then
};

// `bos_token` is "<s>" or {"content": "<s>", ...}; absent or null leaves `id`.
void apply_token(const json& config, const char* key, std::string_view source, const Vocabulary& v, TokenId& id) {
  const json& value = member(config, key);
  if (value.is_null()) return;
  const json& name = value.is_object() ? member(value, "content") : value;
  require(name.is_string(), ErrorCode::kBadFormat, source, ": ", key, ": expected a string");
  const auto found = std::find(v.pieces.begin(), v.pieces.end(), name.get_ref<const std::string&>());
  id = found == v.pieces.end() ? -1 : static_cast<TokenId>(found - v.pieces.begin());
}

void apply_config(std::string_view text, std::string_view source, Vocabulary& v) {
  const json config = parse_json(text, source);
  require(config.is_object(), ErrorCode::kBadFormat, source, ": expected an object");
  apply_token(config, "bos_token", source, v, v.bos_id);
  apply_token(config, "eos_token", source, v, v.eos_id);
  const json& add_bos = member(config, "add_bos_token");
  require(add_bos.is_boolean() || add_bos.is_null(), ErrorCode::kBadFormat, source,
          ": add_bos_token: expected true or false");
  if (add_bos.is_boolean()) v.add_bos = add_bos.get<bool>();
  v.validate(source);
}

}  // namespace

Vocabulary parse_tokenizer_json(std::string_view text, std::string_view source) {
  const json root = parse_json(text, source);
  return TokenizerJson(root, source).read();
}

Vocabulary load_vocabulary(const std::filesystem::path& directory) {
  const std::filesystem::path model = directory / "tokenizer.model", json_file = directory / "tokenizer.json";
  const std::filesystem::path config = directory / "tokenizer_config.json";
  std::error_code ignored;
  const bool has_model = std::filesystem::exists(model, ignored);
  require(has_model || std::filesystem::exists(json_file, ignored), ErrorCode::kNotFound, directory.string(),
          ": neither tokenizer.model nor tokenizer.json is there");
  Vocabulary v = has_model ? parse_sentencepiece_model(read_file(model, kMaxFileBytes), model.string())
                           : parse_tokenizer_json(read_file(json_file, kMaxFileBytes), json_file.string());
  if (std::filesystem::exists(config, ignored)) {
    apply_config(read_file(config, kMaxFileBytes), config.string(), v);
  }
  return v;
}

}  // namespace mixtral
