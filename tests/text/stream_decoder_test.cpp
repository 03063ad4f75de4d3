#include "mixtral/text/stream_decoder.hpp"

#include <doctest/doctest.h>

#include <random>

#include "mixtral/core/utf8.hpp"
#include "support/error_of.hpp"
#include "support/tokenizer_files.hpp"

using namespace mixtral;

namespace {

// Ids with many byte, control and unknown pieces among them.
std::vector<TokenId> random_ids(const Vocabulary& v, std::mt19937& random) {
  std::vector<TokenId> ids(random() % 20);
  for (TokenId& id : ids) {
    const auto limit = random() % 3 == 0 ? v.size() : Index{259};
    id = static_cast<TokenId>(static_cast<Index>(random()) % limit);
  }
  return ids;
}

TokenId byte_id(const Tokenizer& tokenizer, unsigned char byte) {
  const Vocabulary& v = tokenizer.vocabulary();
  for (TokenId id = 0; id < v.size(); ++id) {
    if (byte_of_piece(v.pieces[static_cast<std::size_t>(id)]) == byte) return id;
  }
  return -1;
}

}  // namespace

TEST_CASE("The parts of a stream are whole characters and together the decoded text") {
  std::mt19937 random(7);
  for (const auto& directory : {test::kGoldenTokenizer, test::tiny_dir()}) {
    const Tokenizer tokenizer = test::from_both_files(directory)[0];
    StreamDecoder decoder(tokenizer);  // one for all: flush() begins a new text
    for (int i = 0; i < 5000; ++i) {
      const auto ids = random_ids(tokenizer.vocabulary(), random);
      std::string text;
      for (const TokenId id : ids) {
        const std::string part = decoder.push(id);
        if (!is_utf8(part)) FAIL_CHECK("a part is not UTF-8");
        text += part;
      }
      text += decoder.flush();
      if (text != tokenizer.decode(ids)) FAIL_CHECK(text, " differs from ", tokenizer.decode(ids));
    }
  }
}

TEST_CASE("A character of several byte pieces comes with its last byte") {
  const Tokenizer tokenizer = test::from_both_files(test::tiny_dir())[0];
  StreamDecoder decoder(tokenizer);
  CHECK(decoder.push(byte_id(tokenizer, 0xF0)) == "");
  CHECK(decoder.push(byte_id(tokenizer, 0x9F)) == "");
  CHECK(decoder.push(byte_id(tokenizer, 0x98)) == "");
  CHECK(decoder.push(byte_id(tokenizer, 0x80)) == "\xF0\x9F\x98\x80");
  CHECK(decoder.push(byte_id(tokenizer, 0xE4)) == "");
  CHECK(decoder.push(byte_id(tokenizer, '(')) == "\xEF\xBF\xBD(");
  CHECK(decoder.push(byte_id(tokenizer, 0xE4)) == "");
  CHECK(decoder.push(byte_id(tokenizer, 0xBD)) == "");
  CHECK(decoder.flush() == "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST_CASE("The first piece loses its space, after BOS too; after a prompt it keeps it") {
  const Tokenizer tokenizer = test::from_both_files(test::tiny_dir())[0];
  const auto ids = tokenizer.encode("the");
  REQUIRE(tokenizer.token_bytes(ids[0]).starts_with(' '));
  StreamDecoder decoder(tokenizer);
  CHECK(decoder.push(tokenizer.vocabulary().bos_id) == "");
  std::string first, second;
  for (const TokenId id : ids) first += decoder.push(id);
  for (const TokenId id : ids) second += decoder.push(id);
  CHECK(first == "the");
  CHECK(second == " the");
}

TEST_CASE("An id outside the vocabulary is refused and changes nothing") {
  const Tokenizer tokenizer = test::from_both_files(test::tiny_dir())[0];
  StreamDecoder decoder(tokenizer);
  decoder.push(byte_id(tokenizer, 0xC3));
  for (const TokenId id : {-1, 4096, 1 << 30}) {
    const Error error = test::error_of([&] { decoder.push(id); });
    CHECK(error.code() == ErrorCode::kInvalidArgument);
    CHECK(test::names(error, str(id)));
  }
  CHECK(decoder.push(byte_id(tokenizer, 0xA9)) == "\xC3\xA9");
}
