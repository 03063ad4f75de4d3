#include "mixtral/text/vocabulary.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <limits>

#include "support/error_of.hpp"
#include "support/tokenizer_files.hpp"

using namespace mixtral;
using namespace std::string_literals;
using test::error_of;
using test::names;
using test::small_vocabulary;

namespace {

void check_refused(const std::function<void(Vocabulary&)>& damage, const std::string& part,
                   ErrorCode code = ErrorCode::kBadFormat) {
  Vocabulary v = small_vocabulary({"a", "b", "ab"});
  damage(v);
  const Error error = error_of([&] { v.validate("here"); });
  CHECK(error.code() == code);
  CHECK(names(error, "here: "));
  CHECK(names(error, part));
}

}  // namespace

TEST_CASE("A vocabulary with and without byte pieces is valid") {
  Vocabulary v = small_vocabulary({"a", "b", "ab"});
  v.validate();
  CHECK_FALSE(v.has_bytes());
  test::add_byte_pieces(v);
  v.validate();
  CHECK(v.has_bytes());
}

TEST_CASE("validate() names the piece and the numbers that are wrong") {
  using V = Vocabulary;
  check_refused([](V& v) { v = V{}; }, "0 pieces");
  check_refused([](V& v) { v.scores.pop_back(); }, "7 pieces, but 6 scores");
  check_refused([](V& v) { v.types.push_back(PieceType::kNormal); }, "7 pieces, but 8 types");
  check_refused([](V& v) { v.pieces[5].clear(); }, "piece 5 is empty");
  check_refused([](V& v) { v.pieces[5].assign(1025, 'x'); }, "piece 5 has 1025 bytes");
  check_refused([](V& v) { v.pieces[5] = "\xC3"s; }, "piece 5 is not UTF-8");
  check_refused([](V& v) { v.pieces[5] = "ab"s; }, "pieces 5 and 6 are both \"ab\"");
  check_refused([](V& v) { v.types[5] = static_cast<PieceType>(7); }, "piece 5 has type 7");
  check_refused([](V& v) { v.types[5] = static_cast<PieceType>(0); }, "piece 5 has type 0");
  check_refused([](V& v) { v.scores[5] = std::numeric_limits<float>::quiet_NaN(); }, "piece 5 has score nan");
  check_refused([](V& v) { v.scores[5] = std::numeric_limits<float>::infinity(); }, "piece 5 has score inf");
  check_refused([](V& v) { v.unk_id = 1; }, "unk_id 1");
  check_refused([](V& v) { v.unk_id = 1 << 30; }, "unk_id 1073741824");
  check_refused([](V& v) { v.types[0] = PieceType::kNormal; }, "0 unknown pieces");
  check_refused([](V& v) { v.types[5] = PieceType::kUnknown; }, "2 unknown pieces");
  check_refused([](V& v) { v.bos_id = 7; }, "bos_id 7");
  check_refused([](V& v) { v.eos_id = -2; }, "eos_id -2");
  check_refused([](V& v) { v.bos_id = -1, v.add_bos = true; }, "add_bos");
  check_refused([](V& v) { v.space_prefix = static_cast<SpacePrefix>(3); }, "space_prefix is 3");
  check_refused([](V& v) { v.unk_text = "\xFF"s; }, "unknown piece");
}

TEST_CASE("Byte pieces come all 256 or not at all") {
  check_refused([](Vocabulary& v) { v.types[5] = PieceType::kByte; }, "byte piece 5 is \"b\"");
  Vocabulary v = small_vocabulary({});
  test::add_byte_pieces(v);
  v.pieces[4 + 0x41] = "x"s;
  v.types[4 + 0x41] = PieceType::kNormal;
  const Error error = error_of([&] { v.validate(); });
  CHECK(names(error, "255 of 256"));
  CHECK(names(error, "byte 65"));
}

TEST_CASE("Vocabularies that would break the SentencePiece library are refused") {
  using V = Vocabulary;
  check_refused([](V& v) { v.types[5] = PieceType::kControl; }, "piece 5 \"b\"", ErrorCode::kUnsupported);
  check_refused([](V& v) { v.pieces[5] = std::string("x\0y", 3), v.types[5] = PieceType::kUserDefined; }, "piece 5",
                ErrorCode::kUnsupported);
  V v = small_vocabulary({});
  for (std::size_t n = 1; n <= 65; ++n) {
    v.pieces.emplace_back(n, 'x');
    v.types.push_back(PieceType::kUserDefined);
    v.scores.push_back(0);
    if (n <= 64) v.validate();
  }
  CHECK(error_of([&] { v.validate(); }).code() == ErrorCode::kUnsupported);
}

TEST_CASE("byte_of_piece reads <0x00> to <0xFF> and nothing else") {
  CHECK(byte_of_piece("<0x00>") == 0);
  CHECK(byte_of_piece("<0xFF>") == 255);
  CHECK(byte_of_piece("<0x4A>") == 0x4A);
  for (const char* piece : {"", "<0x4a>", "<0x4>", "<0x4AA>", "<0xG0>", "<0x0G>", "0x004A", "<0X4A>"}) {
    CHECK(byte_of_piece(piece) == -1);
  }
}
