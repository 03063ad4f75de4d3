#include "text/bpe.hpp"

#include <doctest/doctest.h>
#if defined(MIXTRAL_SENTENCEPIECE)
#include <sentencepiece_processor.h>
#endif

#include <algorithm>
#include <limits>
#include <random>

#include "mixtral/core/utf8.hpp"
#include "support/sentencepiece_model.hpp"
#include "support/tokenizer_files.hpp"

using namespace mixtral;

#if defined(MIXTRAL_SENTENCEPIECE)
namespace {

// Characters of a small alphabet, so that pieces overlap in many ways; some are more than one byte.
std::string random_word(std::mt19937& random, std::size_t most) {
  static const std::string kAlphabet[] = {"a", "b", "c", std::string(kSpaceSymbol), "\xC3\xA9", "\xF0\x9F\x98\x80"};
  std::string word;
  for (std::size_t n = 1 + random() % most; n > 0; --n) word += kAlphabet[random() % std::size(kAlphabet)];
  return word;
}

// Pieces of all types, equal scores among them, with or without byte pieces.
Vocabulary random_vocabulary(std::mt19937& random) {
  std::vector<std::string> pieces;
  for (std::size_t n = 5 + random() % 40; n > 0; --n) {
    const std::string word = random_word(random, 5);
    if (word != kSpaceSymbol && std::find(pieces.begin(), pieces.end(), word) == pieces.end()) pieces.push_back(word);
  }
  Vocabulary v = test::small_vocabulary(pieces);
  constexpr PieceType kTypes[] = {PieceType::kNormal, PieceType::kNormal,      PieceType::kNormal,
                                  PieceType::kUnused, PieceType::kUserDefined, PieceType::kControl};
  for (std::size_t id = 4; id < v.pieces.size(); ++id) {
    v.types[id] = kTypes[random() % std::size(kTypes)];
    const bool one_character = utf8_char_length(v.pieces[id]) == static_cast<int>(v.pieces[id].size());
    if (one_character && v.types[id] == PieceType::kControl) v.types[id] = PieceType::kNormal;  // refused by validate()
    v.scores[id] = -static_cast<float>(random() % 6);
    const bool normal = v.types[id] == PieceType::kNormal;
    if (normal && random() % 8 == 0) v.scores[id] = -std::numeric_limits<float>::infinity();
  }
  if (random() % 2 == 0) test::add_byte_pieces(v);
  v.space_prefix = SpacePrefix::kNone;
  v.validate();
  return v;
}

}  // namespace

TEST_CASE("bpe: for random vocabularies of all types of pieces the ids are the SentencePiece library's") {
  std::mt19937 random(17);
  int unknown = 0, unused = 0, compared = 0;
  for (int i = 0; i < 400; ++i) {
    const Vocabulary v = random_vocabulary(random);
    sentencepiece::SentencePieceProcessor library;
    REQUIRE(library.LoadFromSerializedProto(test::sentencepiece_model_bytes(v)).ok());
    const BpeEncoder encoder(v);
    for (int j = 0; j < 30; ++j) {
      std::string text = random_word(random, 30);
      if (random() % 3 == 0) text += " xy\xFF" + random_word(random, 4);
      std::vector<int> want;
      REQUIRE(library.Encode(text, &want).ok());
      std::vector<TokenId> got;
      encoder.encode(text, got);
      CAPTURE(i);
      CAPTURE(text);
      CHECK(got == want);
      ++compared;
      for (const TokenId id : got) {
        unknown += id == v.unk_id ? 1 : 0;
        unused += v.types[static_cast<std::size_t>(id)] == PieceType::kUnused ? 1 : 0;
      }
    }
  }
  CHECK(compared == 12'000);
  CHECK(unknown > 100);
  CHECK(unused > 100);
}
#endif

TEST_CASE("bpe: a series of unknown characters goes on where ids end with one") {
  const Vocabulary v = test::small_vocabulary({"a"});
  const BpeEncoder encoder(v);
  std::vector<TokenId> ids;
  encoder.encode("ax", ids);
  encoder.encode("ya", ids);
  CHECK(ids == std::vector<TokenId>{4, 0, 4});
  encoder.encode("", ids);
  CHECK(ids.size() == 3);
}
