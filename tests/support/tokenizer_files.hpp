// The tokenizers of the reference data and of the tiny model, each from both of its files.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/text/tokenizer.hpp"
#include "mixtral/text/vocabulary_files.hpp"
#include "support/golden.hpp"

namespace mixtral::test {

inline const std::filesystem::path kGoldenTokenizer = golden_dir() / "tokenizer/tokenizer_1";

inline std::string read(const std::filesystem::path& path) { return read_file(path, Index{1} << 24); }

// From tokenizer.model, then from tokenizer.json.
inline std::vector<Tokenizer> from_both_files(const std::filesystem::path& directory) {
  return {Tokenizer(parse_sentencepiece_model(read(directory / "tokenizer.model"))),
          Tokenizer(parse_tokenizer_json(read(directory / "tokenizer.json")))};
}

// A small vocabulary without byte pieces: <unk>, <s>, </s>, the space, then `pieces`, all normal, the earlier of a
// higher score.
inline Vocabulary small_vocabulary(const std::vector<std::string>& pieces) {
  Vocabulary v;
  v.pieces = {"<unk>", "<s>", "</s>", std::string(kSpaceSymbol)};
  v.pieces.insert(v.pieces.end(), pieces.begin(), pieces.end());
  v.types.assign(v.pieces.size(), PieceType::kNormal);
  v.types[0] = PieceType::kUnknown;
  v.types[1] = v.types[2] = PieceType::kControl;
  for (std::size_t i = 0; i < v.pieces.size(); ++i) v.scores.push_back(-static_cast<float>(i));
  v.unk_id = 0;
  v.bos_id = 1;
  v.eos_id = 2;
  return v;
}

inline void add_byte_pieces(Vocabulary& v) {
  constexpr const char* kDigits = "0123456789ABCDEF";
  for (std::size_t byte = 0; byte < 256; ++byte) {
    v.pieces.push_back(str("<0x", kDigits[byte / 16], kDigits[byte % 16], ">"));
    v.types.push_back(PieceType::kByte);
    v.scores.push_back(0);
  }
}

}  // namespace mixtral::test
