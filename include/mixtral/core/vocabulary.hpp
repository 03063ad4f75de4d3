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

// U+2581 stands for the space in pieces.
inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";

struct Vocabulary {
  static constexpr Index kMaxPieces = Index{1} << 20;
  static constexpr Index kMaxPieceBytes = 1024;

  std::vector<std::string> pieces;  // [size], UTF-8, all different
  // [size]: of two possible merges of neighbours, the one with the higher score comes first. Minus infinity: no
  // merge makes this piece.
  std::vector<float> scores;
  std::vector<PieceType> types;  // [size]
  TokenId unk_id = -1;
  TokenId bos_id = -1;   // -1: none
  TokenId eos_id = -1;   // -1: none
  bool add_bos = false;  // prompts begin with bos_id
  SpacePrefix space_prefix = SpacePrefix::kAlways;
  std::string unk_text = " \xE2\x81\x87 ";  // what unk_id decodes to

  Index size() const noexcept { return static_cast<Index>(pieces.size()); }
  bool has_bytes() const noexcept;  // characters outside the vocabulary become bytes, not unk_id

  // Throws Error(kBadFormat | kUnsupported) that begins with `source` and names the piece and the numbers.
  void validate(std::string_view source = "vocabulary") const;
};

// The value of a piece like "<0x0A>", or -1.
int byte_of_piece(std::string_view piece) noexcept;

}  // namespace mixtral
