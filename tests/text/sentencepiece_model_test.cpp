#include <doctest/doctest.h>

#include <limits>

#include "support/error_of.hpp"
#include "support/mutate.hpp"
#include "support/sentencepiece_model.hpp"
#include "support/tokenizer_files.hpp"

using namespace mixtral;
using test::error_of;
using test::names;
using test::sentencepiece_model_bytes;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A ModelProto with one more field at its end: options that come last count.
std::string with_field(std::string_view number_and_wire, std::string_view content) {
  std::string model = sentencepiece_model_bytes(test::small_vocabulary({"a", "b", "ab"}));
  model += number_and_wire;
  model.push_back(static_cast<char>(content.size()));
  return model += content;
}

void check_refused(const std::string& model, ErrorCode code, const std::string& part) {
  const Error error = error_of([&] { parse_sentencepiece_model(model, "file"); });
  CHECK(error.code() == code);
  CHECK(names(error, "file: "));
  CHECK(names(error, part));
}

}  // namespace

TEST_CASE("A vocabulary survives writing and reading") {
  Vocabulary want = test::small_vocabulary({"a", "b", "ab", "[x]"});
  want.types[7] = PieceType::kUserDefined;
  want.scores[6] = -0.25f;
  test::add_byte_pieces(want);
  const Vocabulary got = parse_sentencepiece_model(sentencepiece_model_bytes(want));
  CHECK(got.pieces == want.pieces);
  CHECK(got.scores == want.scores);
  CHECK(got.types == want.types);
  CHECK(got.unk_id == 0);
  CHECK(got.bos_id == 1);
  CHECK(got.eos_id == 2);
  CHECK(got.add_bos);
  CHECK(got.space_prefix == SpacePrefix::kNone);  // none is written
}

TEST_CASE("A piece that no merge makes is never made") {
  Vocabulary v = test::small_vocabulary({"a", "b", "ab"});
  CHECK(Tokenizer(v).encode("ab") == std::vector<TokenId>{3, 6});
  v.scores[6] = -kInfinity;
  CHECK(Tokenizer(v).encode("ab") == std::vector<TokenId>{3, 4, 5});
  CHECK(Tokenizer(v).token_bytes(6) == "ab");
}

TEST_CASE("What this library does not do is unsupported, by name") {
  using enum ErrorCode;
  const std::string trainer = "\x12", normalizer = "\x1A", denormalizer = "\x2A";
  check_refused(with_field(trainer, "\x18\x01"), kUnsupported, "model type 1");
  check_refused(with_field(trainer, "\xC0\x01\x01"), kUnsupported, "spaces at the end of words");
  check_refused(with_field(normalizer, "\x12\x01x"), kUnsupported, "character replacements");
  check_refused(with_field(denormalizer, "\x12\x01x"), kUnsupported, "character replacements");
  check_refused(with_field(normalizer, "\x20\x01"), kUnsupported, "removing extra spaces");
  check_refused(with_field(normalizer, std::string("\x28\0", 2)), kUnsupported, "not escaped");
}

TEST_CASE("A broken model is refused with the place") {
  using enum ErrorCode;
  check_refused("", kBadFormat, "is empty, expected a SentencePiece model");
  check_refused(std::string(5, '\0'), kBadFormat, "field number 0");
  check_refused("\x0A\x7F", kBadFormat, "127 bytes expected, 0 left");
  check_refused("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", kBadFormat, "18446744073709551615 bytes expected");
  check_refused("\x0B", kBadFormat, "wire type 3");
  check_refused("\x08\x01", kBadFormat, "field 1 has wire type 0, expected 2");
  check_refused(str("\x08", std::string(10, '\xFF')), kBadFormat, "more than 64 bits");
  check_refused(with_field("\x0A", "\x0A\x01z\x18\x07"), kBadFormat, "type 7");
  check_refused(with_field("\x0A", std::string("\x0A\x01z\x15\0\0\x80\x7F", 8)), kBadFormat, "score inf");
  check_refused(with_field("\x0A", "\x0A\x01z\x15\x01"), kBadFormat, "piece at byte 4");
  check_refused(with_field("\x0A",
                           "\x0A\x01"
                           "a"),
                kBadFormat, "both \"a\"");
  const std::string byte_fallback = std::string("\x98\x02\x01", 3);
  check_refused(with_field("\x12", byte_fallback), kBadFormat, "byte_fallback is set");
}

TEST_CASE("3000 mutated tokenizer.model files give an Error or a working tokenizer") {
  const std::string original = test::read(test::kGoldenTokenizer / "tokenizer.model");
  std::mt19937 random(20240117);
  int loaded = 0, refused = 0;
  for (int i = 0; i < 3000; ++i) {
    try {
      const Tokenizer tokenizer(parse_sentencepiece_model(test::mutate(original, random)));
      CHECK_NOTHROW(tokenizer.decode(tokenizer.encode("Hello  w\xC3\xB6rld 123\n\xFF<s>")));
      ++loaded;
    } catch (const Error& error) {
      CHECK(error.code() != ErrorCode::kInternal);
      ++refused;
    }
  }
  MESSAGE(loaded, " loaded, ", refused, " refused");
  CHECK(loaded > 100);
  CHECK(refused > 300);
}
