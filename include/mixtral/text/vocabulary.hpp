// A tokenizer's vocabulary as plain data: parsed from `tokenizer.model`, `tokenizer.json` or GGUF, or filled by
// hand. Everything is checked by validate() before it is used.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/core/types.hpp"

namespace mixtral {

// Pinned: the numbers of SentencePiece and GGUF.
enum class PieceType : std::int32_t {
  kNormal = 1,
  kUnknown = 2,      // stands for what no piece covers; exactly one
  kControl = 3,      // <s>, </s>, ...: never found in text
  kUserDefined = 4,  // found in text before anything else, never merged
  kUnused = 5,       // may arise on the way to a larger piece; is taken apart again otherwise
  kByte = 6,         // "<0x00>" to "<0xFF>": all 256, or none
};

// Whether a text gets a space in front, so that its first word looks like any other. Pinned.
enum class SpacePrefix : std::int32_t { kNone = 0, kAlways = 1, kUnlessSpace = 2 };

// Which parts of a text get it, where added tokens cut it into parts. Pinned.
enum class PrefixedParts : std::int32_t {
  kEvery = 0,  // "legacy" of transformers, "always" of the tokenizers library
  kFirst = 1,  // only what stands at the very beginning; "first" of the tokenizers library
  kText = 2,   // the text before it is cut, so that an added token at its beginning has a space before it (but for
               // a named one); `legacy: false` of transformers
};

// By whose rules added tokens are found. Pinned.
enum class AddedTokenRules : std::int32_t {
  kTokenizers = 0,    // Hugging Face's tokenizers library, on tokenizer.json
  kTransformers = 1,  // transformers' own Python code around SentencePiece
};

// A token that is cut out of a text before anything is merged: one that a fine-tune added, or a control piece of the
// model's own. Its text is the piece of that id.
struct AddedToken {
  TokenId id = -1;
  bool special = false;      // found only where the caller asks for it (SpecialTokens); decodes to nothing
  bool named = false;        // the configuration calls it bos_token, pad_token, an additional_special_token ...
  bool own_piece = false;    // one of the model's own pieces, not one that came later
  bool single_word = false;  // found only where no word goes on before or behind it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // takes the white space behind it along
  bool normalized = false;   // found only after the others, in the text as the file's normalizer leaves it
};

// U+2581 stands for the space in pieces.
inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";

struct Vocabulary {
  static constexpr Index kMaxPieces = Index{1} << 20;
  static constexpr Index kMaxPieceBytes = 1024;

  std::vector<std::string> pieces;  // [size], UTF-8, all different; an empty one of type kUnused: no piece has this id
  // [size]: of two possible merges of neighbours, the one with the higher score comes first. Minus infinity: no
  // merge makes this piece.
  std::vector<float> scores;
  std::vector<PieceType> types;  // [size]
  TokenId unk_id = -1;
  TokenId bos_id = -1;   // -1: none
  TokenId eos_id = -1;   // -1: none
  bool add_bos = false;  // prompts begin with bos_id
  SpacePrefix space_prefix = SpacePrefix::kAlways;
  std::vector<AddedToken> added;  // all different; those that are no pieces of the model are not merged to
  PrefixedParts prefixed_parts = PrefixedParts::kEvery;
  AddedTokenRules added_rules = AddedTokenRules::kTokenizers;
  // The file's normalizer escapes spaces and puts the prefix in front; false: a later step does.
  bool normalizes_spaces = true;
  Index n_ids = 0;  // the model's rows, if they are known: ids from size() to here have no piece, decode to nothing
  std::string unk_text = " \xE2\x81\x87 ";  // what unk_id decodes to

  std::vector<std::string> notes;  // what its user should know: "tokenizer.json: ... was left out since ..."

  Index size() const noexcept { return static_cast<Index>(pieces.size()); }
  // -1: no piece.
  TokenId find(std::string_view piece) const noexcept;
  bool has_bytes() const noexcept;  // characters outside the vocabulary become bytes, not unk_id

  // Throws Error(kBadFormat | kUnsupported) that begins with `source` and names the piece and the numbers.
  void validate(std::string_view source = "vocabulary") const;
};

// The value of a piece like "<0x0A>", or -1.
int byte_of_piece(std::string_view piece) noexcept;

}  // namespace mixtral
