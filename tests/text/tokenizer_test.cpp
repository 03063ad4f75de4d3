#include "mixtral/text/tokenizer.hpp"

#include <doctest/doctest.h>
#if defined(MIXTRAL_SENTENCEPIECE)
#include <sentencepiece_processor.h>
#endif

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "support/error_of.hpp"
#include "support/tokenizer_files.hpp"

using namespace mixtral;
using nlohmann::json;
using test::from_both_files;
using test::kGoldenTokenizer;
using test::tiny_dir;

namespace {

constexpr const char* kLanguages[] = {"de", "pl", "fr", "es", "en", "it", "c", "python"};

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

std::string heldout(const std::string& language) {
  return test::read(test::golden_dir() / "tiny/heldout" / (language + ".txt"));
}

#if defined(MIXTRAL_SENTENCEPIECE)
std::vector<TokenId> encode_with_library(const sentencepiece::SentencePieceProcessor& library,
                                         const std::string& text) {
  std::vector<int> ids;
  REQUIRE(library.Encode(text, &ids).ok());
  return ids;
}

// Words, spaces, line ends, letters of many scripts and bytes that are no UTF-8.
std::string random_text(std::mt19937& random, std::size_t n_parts) {
  static const std::string kParts[] = {
      "the",          " ",    " ",        "  ",  "\n", "size", "0", "7", "\xC3\xA9", "\xE4\xBD\xA0", "\xF0\x9F\x98\x80",
      "\xE2\x96\x81", "\xFF", "\xE4\xBD", "<s>", "ing"};
  std::string text;
  for (std::size_t i = 0; i < n_parts; ++i) text += kParts[random() % std::size(kParts)];
  return text;
}
#endif

}  // namespace

TEST_CASE("Every golden text becomes the reference's ids and comes back, from both files") {
  const json cases = test::read_json(kGoldenTokenizer / "cases.json");
  for (const Tokenizer& tokenizer : from_both_files(kGoldenTokenizer)) {
    CHECK(tokenizer.vocabulary().size() == cases.at("vocab_size"));
    CHECK(tokenizer.vocabulary().bos_id == cases.at("bos_id"));
    CHECK(tokenizer.vocabulary().eos_id == cases.at("eos_id"));
    CHECK(tokenizer.vocabulary().unk_id == cases.at("unk_id"));
    for (const json& c : cases.at("encode")) {
      CAPTURE(c.at("text"));
      const auto ids = tokenizer.encode(c.at("text").get<std::string>());
      CHECK(json(ids) == c.at("ids"));
      CHECK(tokenizer.decode(ids) == c.at("decoded").get<std::string>());
    }
    for (const json& c : cases.at("encode_bytes")) {
      CHECK(json(tokenizer.encode(from_hex(c.at("bytes_hex")))) == c.at("ids"));
    }
    for (const json& c : cases.at("decode")) {
      const auto ids = c.at("ids").get<std::vector<TokenId>>();
      CHECK(tokenizer.decode(ids) == c.at("decoded_sentencepiece").get<std::string>());
    }
  }
}

TEST_CASE("Special tokens that are spelled in a text are ordinary text") {
  const json cases = test::read_json(kGoldenTokenizer / "cases.json");
  for (const Tokenizer& tokenizer : from_both_files(kGoldenTokenizer)) {
    for (const json& c : cases.at("special_token_text_tokenizer_json")) {
      const auto text = c.at("text").get<std::string>();
      const auto ids = tokenizer.encode(text);
      for (const TokenId id : ids) CHECK(id >= 3);
      CHECK(tokenizer.decode(ids) == text);
    }
  }
}

TEST_CASE("The tiny model's prompts become the reference's ids, from both files") {
  const json reference = test::read_json(test::golden_dir() / "tiny/reference.json");
  for (const Tokenizer& tokenizer : from_both_files(tiny_dir())) {
    for (const auto& [language, prompt] : reference.at("prompts").items()) {
      CAPTURE(language);
      auto ids = tokenizer.encode(prompt.at("prompt").get<std::string>());
      ids.insert(ids.begin(), tokenizer.vocabulary().bos_id);
      CHECK(json(ids) == prompt.at("ids"));
      ids.insert(ids.end(), prompt.at("greedy").begin(), prompt.at("greedy").end());
      CHECK(tokenizer.decode(ids) == prompt.at("greedy_text").get<std::string>());
    }
  }
}

TEST_CASE("Both files of the tiny model give the same ids for the held-out texts, and the texts come back") {
  const auto tokenizers = from_both_files(tiny_dir());
  for (const char* language : kLanguages) {
    CAPTURE(language);
    const std::string text = heldout(language);
    const auto ids = tokenizers[0].encode(text);
    CHECK(ids == tokenizers[1].encode(text));
    CHECK(tokenizers[0].decode(ids) == text);
  }
}

#if defined(MIXTRAL_SENTENCEPIECE)
TEST_CASE("Ids and texts are the library's own on the original file") {
  for (const auto& directory : {kGoldenTokenizer, tiny_dir()}) {
    sentencepiece::SentencePieceProcessor library;
    REQUIRE(library.LoadFromSerializedProto(test::read(directory / "tokenizer.model")).ok());
    const Tokenizer tokenizer = from_both_files(directory)[0];
    std::mt19937 random(11);
    for (int i = 0; i < 300; ++i) {
      const std::string text = random_text(random, random() % 100);
      if (tokenizer.encode(text) != encode_with_library(library, text)) FAIL_CHECK(text);
    }
    for (int i = 0; i < 3000; ++i) {
      std::vector<TokenId> ids(random() % 12);
      for (TokenId& id : ids) id = static_cast<TokenId>(random() % (random() % 2 == 0 ? 270 : 1024));
      std::string want;
      REQUIRE(library.Decode(ids, &want).ok());
      if (tokenizer.decode(ids) != want) FAIL_CHECK(want);
    }
  }
}

TEST_CASE("A text that is cut into many runs has the ids of the whole") {
  sentencepiece::SentencePieceProcessor library;
  REQUIRE(library.LoadFromSerializedProto(test::read(tiny_dir() / "tokenizer.model")).ok());
  const Tokenizer tokenizer = from_both_files(tiny_dir())[0];
  std::mt19937 random(13);
  std::string text;
  for (const char* language : kLanguages) text += heldout(language) + random_text(random, 2000);
  CHECK(tokenizer.encode(text) == encode_with_library(library, text));
  for (const std::string& run : {std::string(100'000, ' '), std::string(100'000, '-'), std::string(100'000, '\xBF')}) {
    CHECK(tokenizer.encode(run) == encode_with_library(library, run));
  }
}
#endif

TEST_CASE("A long run of one character takes no longer than other text, and has the library's ids") {
  const Tokenizer tokenizer = from_both_files(tiny_dir())[0];
  constexpr std::size_t kBytes = 1'000'000;
  std::string other;
  while (other.size() < kBytes) other += heldout("en");
  other.resize(kBytes);
  const auto seconds = [&](const std::string& text) {  // the best of three
    double best = 1e9;
    for (int i = 0; i < 3; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      tokenizer.encode(text);
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return best;
  };
  const double wanted = seconds(other);
  for (const char c : {' ', '\n', 'a', '0'}) {
    CAPTURE(c);
    CHECK(seconds(std::string(kBytes, c)) < 2 * wanted);
  }
#if defined(MIXTRAL_SENTENCEPIECE)
  sentencepiece::SentencePieceProcessor library;
  REQUIRE(library.Load((tiny_dir() / "tokenizer.model").string()).ok());
  for (const std::size_t n : {1000, 4095, 4096, 4097, 30011}) {
    for (const std::string& text : {str(std::string(n, ' '), 'x'), str('x', std::string(n, 'a'))}) {
      CHECK(tokenizer.encode(text) == encode_with_library(library, text));
    }
  }
#endif
}

TEST_CASE("Without byte pieces a series of unknown characters is one unknown token, however long") {
  const Tokenizer tokenizer(test::small_vocabulary({"a", "b", "ab"}));
  CHECK(tokenizer.encode(str("a", std::string(10'000, 'x'), "ab")) == std::vector<TokenId>{3, 4, 0, 6});
  CHECK(tokenizer.decode(std::vector<TokenId>{3, 4, 0, 6}) == "a \xE2\x81\x87 ab");
}

TEST_CASE("A space goes in front always, never, or unless one is there") {
  Vocabulary v = test::small_vocabulary({"a"});
  using Ids = std::vector<TokenId>;
  CHECK(Tokenizer(v).encode("a") == Ids{3, 4});
  CHECK(Tokenizer(v).encode(" a") == Ids{3, 3, 4});
  CHECK(Tokenizer(v).encode("") == Ids{});
  CHECK(Tokenizer(v).decode(Ids{3, 3, 4}) == " a");
  v.space_prefix = SpacePrefix::kNone;
  CHECK(Tokenizer(v).encode("a") == Ids{4});
  CHECK(Tokenizer(v).decode(Ids{3, 4}) == " a");
  v.space_prefix = SpacePrefix::kUnlessSpace;
  CHECK(Tokenizer(v).encode("a") == Ids{3, 4});
  CHECK(Tokenizer(v).encode(" a") == Ids{3, 4});
  CHECK(Tokenizer(v).encode(" ") == Ids{3});
}

TEST_CASE("User-defined pieces are found before anything is merged") {
  Vocabulary v = test::small_vocabulary({"a", "b", "ab", "bb"});
  v.types[7] = PieceType::kUserDefined;
  CHECK(Tokenizer(v).encode("abba") == std::vector<TokenId>{3, 4, 7, 4});
}

TEST_CASE("token_bytes() is what an id adds to a text") {
  const Tokenizer tokenizer = from_both_files(tiny_dir())[0];
  CHECK(tokenizer.token_bytes(0) == " \xE2\x81\x87 ");
  CHECK(tokenizer.token_bytes(1) == "");
  CHECK(tokenizer.token_bytes(3) == std::string_view("\0", 1));
  CHECK(tokenizer.token_bytes(258) == "\xFF");
  CHECK(tokenizer.token_bytes(259) == "  ");
  for (const TokenId id : {-1, 4096}) {
    CHECK(test::names(test::error_of([&] { tokenizer.token_bytes(id); }), str(id)));
    CHECK(test::names(test::error_of([&] { tokenizer.decode(std::vector<TokenId>{id}); }), str(id)));
  }
}

TEST_CASE("More than 16 MiB without a place to cut is refused") {
  const Tokenizer tokenizer(test::small_vocabulary({"a", "aa"}));
  const Error error = test::error_of([&] { tokenizer.encode(std::string((1u << 24) + 1, 'a')); });
  CHECK(error.code() == ErrorCode::kInvalidArgument);
  CHECK(test::names(error, "16777216"));
}

TEST_CASE("One tokenizer serves several threads at once") {
  const Tokenizer tokenizer = from_both_files(tiny_dir())[0];
  const std::string text = heldout("en");
  const auto want = tokenizer.encode(text);
  std::vector<std::vector<TokenId>> got(4);
  std::vector<std::thread> threads;
  for (auto& ids : got) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5; ++i) ids = tokenizer.encode(text);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& ids : got) CHECK(ids == want);
}
