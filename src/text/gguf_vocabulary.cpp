#include "text/gguf_vocabulary.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "core/json.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/io/gguf.hpp"

namespace mixtral {
namespace {

GgufFile open(std::string_view bytes, const std::string& source) {
  return GgufFile(std::as_bytes(std::span(bytes)), source);
}

std::string key_of(std::string_view name) { return str("tokenizer.ggml.", name); }

// An array that has an element for each token.
template <class T>
std::vector<T> required(std::optional<std::vector<T>> found, std::string_view name, std::size_t n_tokens,
                        const std::string& source) {
  require(found.has_value(), ErrorCode::kBadFormat, source, ": no ", key_of(name));
  require(found->size() == n_tokens, ErrorCode::kBadFormat, source, ": ", key_of(name), " has ", found->size(),
          " elements for ", n_tokens, " tokens");
  return *std::move(found);
}

void require_supported(const GgufFile& file) {
  const auto model = file.text(key_of("model"));
  require(model.has_value(), ErrorCode::kBadFormat, file.name(), ": no ", key_of("model"));
  require(*model == "llama", ErrorCode::kUnsupported, file.name(), ": ", key_of("model"), " is ", json::quote(*model),
          ", supported is \"llama\" (SentencePiece BPE)");
  require(!file.boolean(key_of("remove_extra_whitespaces")).value_or(false), ErrorCode::kUnsupported, file.name(), ": ",
          key_of("remove_extra_whitespaces"), " is true, which is not supported");
  const GgufKey* const map = file.find_key(key_of("precompiled_charsmap"));
  require(map == nullptr || map->bytes.empty(), ErrorCode::kUnsupported, file.name(),
          ": a map of character replacements is not supported");
}

void read_pieces(const GgufFile& file, Vocabulary& v) {
  const auto tokens = file.texts(key_of("tokens"));
  require(tokens.has_value(), ErrorCode::kBadFormat, file.name(), ": no ", key_of("tokens"));
  const std::size_t n = tokens->size();
  require(n <= static_cast<std::size_t>(Vocabulary::kMaxPieces), ErrorCode::kBadFormat, file.name(), ": ", n,
          " tokens, expected at most ", Vocabulary::kMaxPieces);
  v.pieces.assign(tokens->begin(), tokens->end());
  v.scores = required(file.floats(key_of("scores")), "scores", n, file.name());
  const std::vector<Index> types = required(file.integers(key_of("token_type")), "token_type", n, file.name());
  for (std::size_t id = 0; id < n; ++id) {
    require(std::isfinite(v.scores[id]), ErrorCode::kBadFormat, file.name(), ": token ", id, " has score ",
            v.scores[id]);
    require(types[id] >= 1 && types[id] <= 6, ErrorCode::kBadFormat, file.name(), ": token ", id, " has type ",
            types[id], ", expected 1 to 6");
    v.types.push_back(static_cast<PieceType>(types[id]));
  }
}

// Some bytes alone spell nothing: without all of them none is used. (Vocabularies that somebody cut have such.)
void drop_some_bytes(const std::string& source, Vocabulary& v) {
  Index n = 0;
  for (std::size_t id = 0; id < v.pieces.size(); ++id) {
    if (v.types[id] != PieceType::kByte) continue;
    require(byte_of_piece(v.pieces[id]) >= 0, ErrorCode::kBadFormat, source, ": byte token ", id, " is ",
            json::quote(v.pieces[id]), ", expected <0x00> to <0xFF>");
    ++n;
  }
  if (n == 0 || n >= 256) return;
  std::replace(v.types.begin(), v.types.end(), PieceType::kByte, PieceType::kUnused);
  v.notes.push_back(str(source, ": ", n, " of 256 byte tokens: none is used"));
}

// A special token's id: the key's, or what SentencePiece models of this family have.
TokenId special_id(const GgufFile& file, std::string_view name, TokenId usual, PieceType type, const Vocabulary& v) {
  const auto given = file.integer(key_of(str(name, "_token_id")), 0, std::max<Index>(v.size() - 1, 0));
  if (given) return static_cast<TokenId>(*given);
  return usual < static_cast<TokenId>(v.size()) && v.types[static_cast<std::size_t>(usual)] == type ? usual : -1;
}

void read_special(const GgufFile& file, Vocabulary& v) {
  v.unk_id = special_id(file, "unknown", 0, PieceType::kUnknown, v);
  v.bos_id = special_id(file, "bos", 1, PieceType::kControl, v);
  v.eos_id = special_id(file, "eos", 2, PieceType::kControl, v);
  v.add_bos = file.boolean(key_of("add_bos_token")).value_or(v.bos_id >= 0);
  require(!v.add_bos || v.bos_id >= 0, ErrorCode::kBadFormat, file.name(), ": ", key_of("add_bos_token"),
          " is true, but there is no bos token");
  const bool prefix = file.boolean(key_of("add_space_prefix")).value_or(true);
  v.space_prefix = prefix ? SpacePrefix::kAlways : SpacePrefix::kNone;

  auto n_own = static_cast<TokenId>(v.size());
  const auto is_ordinary = [&](TokenId id) {
    const PieceType type = v.types[static_cast<std::size_t>(id)];
    return type == PieceType::kNormal || type == PieceType::kByte;
  };
  while (n_own > 0 && !is_ordinary(n_own - 1)) --n_own;
  for (TokenId id = 0; id < v.size(); ++id) {
    const PieceType type = v.types[static_cast<std::size_t>(id)];
    const bool special = type == PieceType::kControl || type == PieceType::kUnknown;
    const bool later = id >= n_own && type != PieceType::kUnused;
    // What begins or ends a sequence is for nobody's text to make, whatever the file says.
    const bool hidden = special || id == v.bos_id || id == v.eos_id;
    if (special || later) v.added.push_back({.id = id, .special = hidden, .own_piece = id < n_own});
  }
}

}  // namespace

Vocabulary parse_gguf_vocabulary(std::string_view bytes, const std::string& source) {
  const GgufFile file = open(bytes, source);
  require_supported(file);
  Vocabulary v;
  read_pieces(file, v);
  drop_some_bytes(source, v);
  read_special(file, v);
  v.validate(source);
  return v;
}

std::optional<std::string> find_gguf_chat_template(std::string_view bytes, const std::string& source) {
  const auto text = open(bytes, source).text("tokenizer.chat_template");
  if (!text) return {};
  return std::string(*text);
}

}  // namespace mixtral
