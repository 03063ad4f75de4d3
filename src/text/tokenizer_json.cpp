// Hugging Face's tokenizer.json and tokenizer_config.json. Only what a SentencePiece BPE model turns into is
// accepted; the merges become scores, so that there is one tokenizer behind all files.
#include <algorithm>
#include <limits>
#include <unordered_map>
#include <unordered_set>

#include "core/json.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/core/utf8.hpp"
#include "mixtral/text/vocabulary_files.hpp"

namespace mixtral {
namespace {

using json::ObjectReader;

constexpr std::size_t kMaxMerges = 1u << 24;     // ranks are exact as float up to here
constexpr Index kMaxFileBytes = Index{1} << 26;  // the largest vocabularies in use take half
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

  TokenId id(const json::Value& value, const std::string& piece) const {
    const Index* number = value.get<Index>();
    check(number != nullptr && *number >= 0 && *number < Vocabulary::kMaxPieces, "id of ", json::quote(piece), " is ",
          json::describe(value), ", expected an integer from 0 to ", Vocabulary::kMaxPieces - 1);
    return static_cast<TokenId>(*number);
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

  void read_pieces() {
    for (const json::Member& piece : model_.object("vocab")) {
      set_piece(id(piece.value, piece.key), piece.key, PieceType::kNormal);
    }
    if (const json::Array* added = root_.optional_array("added_tokens")) {
      for (const json::Value& token : *added) read_added_token({token, str(source_, ": added_tokens")});
    }
    const bool byte_fallback = model_.boolean("byte_fallback", false);
    for (std::size_t i = 0; i < v_.pieces.size(); ++i) {
      check(!v_.pieces[i].empty(), "no piece has id ", i, ", but ids go up to ", v_.pieces.size() - 1);
      if (byte_fallback && byte_of_piece(v_.pieces[i]) >= 0) v_.types[i] = PieceType::kByte;
      ids_.emplace(v_.pieces[i], static_cast<TokenId>(i));
    }
    const std::string& unknown = model_.string("unk_token");
    v_.unk_id = find(unknown);
    check(v_.unk_id >= 0, "unk_token ", json::quote(unknown), " is no piece");
    type(v_.unk_id) = PieceType::kUnknown;
  }

  void read_added_token(const ObjectReader& token) {
    const std::string& piece = token.string("content");
    const bool special = token.boolean("special", false);
    for (const char* key : {"lstrip", "rstrip", "single_word"}) {
      supported(special || !token.boolean(key, false), token, key);
    }
    set_piece(id(token.at("id"), piece), piece, special ? PieceType::kControl : PieceType::kUserDefined);
  }

  void set_piece(TokenId at, const std::string& piece, PieceType piece_type) {
    const auto i = static_cast<std::size_t>(at);
    check(!piece.empty(), "piece ", at, " is empty");
    if (i >= v_.pieces.size()) {
      v_.pieces.resize(i + 1);
      v_.types.resize(i + 1, PieceType::kNormal);
    }
    check(v_.pieces[i].empty() || v_.pieces[i] == piece, "id ", at, " is both ", json::quote(v_.pieces[i]), " and ",
          json::quote(piece));
    v_.pieces[i] = piece;
    v_.types[i] = piece_type;
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
  SpacePrefix space_prefix() const {
    static const std::string kPrepend = step(R"({"type": "Prepend", "prepend": "\u2581"})");
    static const std::string kReplace = step(R"({"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"})");
    if (root_.find("normalizer") == nullptr) return metaspace_prefix();
    supported(root_.find("pre_tokenizer") == nullptr, root_, "pre_tokenizer");
    const std::vector<std::string> found = steps("normalizer", "normalizers");
    if (found == std::vector{kPrepend, kReplace}) return SpacePrefix::kAlways;
    supported(found == std::vector{kReplace}, root_, "normalizer");
    return SpacePrefix::kNone;
  }

  SpacePrefix metaspace_prefix() const {
    const std::optional<ObjectReader> found = root_.optional_object("pre_tokenizer");
    supported(found && is(*found, "type", "Metaspace") && is(*found, "replacement", kSpaceSymbol) &&
                  !found->boolean("split", true),
              root_, "pre_tokenizer");
    if (is(*found, "prepend_scheme", "always") || is(*found, "prepend_scheme", "first")) {
      return SpacePrefix::kUnlessSpace;
    }
    supported(is(*found, "prepend_scheme", "never"), root_, "pre_tokenizer");
    return SpacePrefix::kNone;
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

  void check_decoder() const {
    std::vector<std::string> expected = {
        step(R"({"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "})"),
        step(R"({"type": "ByteFallback"})"), step(R"({"type": "Fuse"})")};
    if (v_.space_prefix != SpacePrefix::kNone) {
      expected.push_back(step(R"({"type": "Strip", "content": " ", "start": 1, "stop": 0})"));
    }
    supported(steps("decoder", "decoders") == expected, root_, "decoder");
  }

  // What goes in front of a text is the BOS.
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

  TokenId special(std::string_view piece) const {
    const TokenId at = find(piece);
    return at >= 0 && v_.types[static_cast<std::size_t>(at)] == PieceType::kControl ? at : -1;
  }

  std::string source_;
  ObjectReader root_, model_;
  Vocabulary v_;
  std::unordered_map<std::string_view, TokenId> ids_;  // views into v_.pieces, complete by then
};

// `bos_token` is "<s>" or {"content": "<s>", ...}; absent or null leaves `id`.
void apply_token(const ObjectReader& config, std::string_view key, const Vocabulary& v, TokenId& id) {
  const json::Value* value = config.find(key);
  if (value == nullptr) return;
  const bool wrapped = value->get<json::Object>() != nullptr;
  const std::string& name = wrapped ? config.optional_object(key)->string("content") : config.string(key);
  const auto found = std::find(v.pieces.begin(), v.pieces.end(), name);
  id = found == v.pieces.end() ? -1 : static_cast<TokenId>(found - v.pieces.begin());
}

void apply_config(const EmbeddedFile& file, const std::string& where, Vocabulary& v) {
  const json::Value root = json::parse(file.contents, where);
  const ObjectReader config(root, where);
  apply_token(config, "bos_token", v, v.bos_id);
  apply_token(config, "eos_token", v, v.eos_id);
  v.add_bos = config.boolean("add_bos_token", v.add_bos);
  v.validate(where);
}

constexpr const char* kConfigName = "tokenizer_config.json";

}  // namespace

Vocabulary parse_tokenizer_json(std::string_view text, std::string_view source) {
  const json::Value root = json::parse(text, source);
  return TokenizerJson(root, source).read();
}

std::optional<std::filesystem::path> find_tokenizer_file(const std::filesystem::path& directory) {
  for (const char* name : {"tokenizer.model", "tokenizer.model.v3", "tokenizer.model.v2", "tokenizer.model.v1",
                           "tokenizer.json", "tekken.json"}) {
    if (may_exist(directory / name)) return directory / name;
  }
  return {};
}

std::vector<EmbeddedFile> read_tokenizer_files(const std::filesystem::path& model) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(model, ignored)) return read_embedded_files(model);
  require(may_exist(model), ErrorCode::kNotFound, model.string(), ": no such file or directory");
  std::vector<EmbeddedFile> files;
  const auto read = [&](const std::filesystem::path& path) {
    files.push_back({path.filename().string(), read_file(path, kMaxFileBytes)});
  };
  if (const auto file = find_tokenizer_file(model)) {
    require(file->filename() != "tekken.json", ErrorCode::kUnsupported, file->string(),
            ": Tekken tokenizers are not supported");
    read(*file);
    if (may_exist(model / kConfigName)) read(model / kConfigName);
  }
  return files;
}

Vocabulary parse_tokenizer_files(std::span<const EmbeddedFile> files, const std::string& where) {
  const auto is_config = [](const EmbeddedFile& file) { return file.name == kConfigName; };
  const auto file = std::find_if_not(files.begin(), files.end(), is_config);
  require(file != files.end(), ErrorCode::kNotFound, where, ": neither tokenizer.model nor tokenizer.json is there");
  const std::string source = (std::filesystem::path(where) / file->name).string();
  Vocabulary v = file->name == "tokenizer.json" ? parse_tokenizer_json(file->contents, source)
                                                : parse_sentencepiece_model(file->contents, source);
  const auto config = std::find_if(files.begin(), files.end(), is_config);
  if (config != files.end()) apply_config(*config, (std::filesystem::path(where) / kConfigName).string(), v);
  return v;
}

Vocabulary load_vocabulary(const std::filesystem::path& model) {
  return parse_tokenizer_files(read_tokenizer_files(model), model.string());
}

}  // namespace mixtral
