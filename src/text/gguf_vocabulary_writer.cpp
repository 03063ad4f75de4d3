#include <algorithm>
#include <cmath>
#include <limits>

#include "io/gguf_keys.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/utf8.hpp"
#include "text/gguf_vocabulary.hpp"

namespace mixtral {
namespace {

// Every id has a token in GGUF: those without a piece are called as converters of checkpoints call them.
struct Tokens {
  std::vector<std::string> pieces;
  std::vector<float> scores;
  std::vector<std::int32_t> types;
};

Tokens tokens_of(const Vocabulary& v) {
  Tokens out{v.pieces, v.scores, {}};
  std::vector<PieceType> types = v.types;
  const auto n = static_cast<std::size_t>(std::max(v.n_ids, v.size()));
  out.pieces.resize(n);
  out.scores.resize(n);
  types.resize(n, PieceType::kUnused);
  for (const AddedToken& token : v.added) {
    PieceType& type = types[static_cast<std::size_t>(token.id)];
    if (type == PieceType::kNormal && !token.special) type = PieceType::kUserDefined;  // found in any text
  }
  for (std::size_t id = 0; id < n; ++id) {
    std::string& piece = out.pieces[id];
    if (piece.empty()) piece = str("[PAD", id, "]");
    // There is no score for what nothing merges to, but a type for what is taken apart again.
    if (std::isinf(out.scores[id])) {
      out.scores[id] = std::numeric_limits<float>::lowest();
      const bool is_character = static_cast<std::size_t>(utf8_char_length(piece)) == piece.size();
      if (types[id] == PieceType::kNormal && !is_character) types[id] = PieceType::kUnused;
    }
    out.types.push_back(static_cast<std::int32_t>(types[id]));
  }
  return out;
}

// What ends a sequence first, then the others, for which there are two more keys.
void add_ends(const Vocabulary& v, std::span<const TokenId> ends, const std::string& source, GgufKeys& keys,
              std::vector<std::string>& notes) {
  std::vector<TokenId> ids;
  if (v.eos_id >= 0) ids.push_back(v.eos_id);
  for (const TokenId id : ends) {
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  constexpr const char* kNames[] = {"eos", "eot", "eom"};
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i < std::size(kNames)) {
      keys.integer(str("tokenizer.ggml.", kNames[i], "_token_id"), ids[i]);
    } else {
      notes.push_back(str(source, ": id ", ids[i], " ends a sequence, too: a GGUF file can name only three"));
    }
  }
}

// Whether texts with or without added tokens may get other ids.
bool has_more_rules(const Vocabulary& v) {
  return v.space_prefix == SpacePrefix::kUnlessSpace || v.prefixed_parts != PrefixedParts::kEvery ||
         std::any_of(v.added.begin(), v.added.end(),
                     [](const AddedToken& t) { return t.single_word || t.lstrip || t.rstrip; });
}

}  // namespace

std::string gguf_vocabulary_file(const Vocabulary& v, const std::optional<std::string>& chat_template,
                                 std::span<const TokenId> ends, const std::string& source,
                                 std::vector<std::string>& notes) {
  require(v.size() <= v.n_ids, ErrorCode::kUnsupported, source, ": the tokenizer has ", v.size(), " pieces, the model ",
          v.n_ids, " rows: a GGUF file has as many of both");
  const Tokens tokens = tokens_of(v);
  GgufKeys keys;
  keys.text("tokenizer.ggml.model", "llama");
  keys.text("tokenizer.ggml.pre", "default");
  keys.texts("tokenizer.ggml.tokens", tokens.pieces);
  keys.floats("tokenizer.ggml.scores", tokens.scores);
  keys.integers("tokenizer.ggml.token_type", tokens.types);
  keys.integer("tokenizer.ggml.unknown_token_id", v.unk_id);
  if (v.bos_id >= 0) keys.integer("tokenizer.ggml.bos_token_id", v.bos_id);
  add_ends(v, ends, source, keys, notes);
  keys.boolean("tokenizer.ggml.add_bos_token", v.add_bos);
  keys.boolean("tokenizer.ggml.add_eos_token", false);  // no prompt of this library ends with it
  keys.boolean("tokenizer.ggml.add_space_prefix", v.space_prefix != SpacePrefix::kNone);
  if (chat_template) keys.text("tokenizer.chat_template", *chat_template);
  if (has_more_rules(v)) {
    notes.push_back(str(source,
                        ": the tokenizer has rules about spaces that a GGUF file cannot say: some texts get "
                        "other ids with it"));
  }
  return keys.header(0);
}

}  // namespace mixtral
