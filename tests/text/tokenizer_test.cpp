#include "mixtral/text/tokenizer.hpp"

#include <doctest/doctest.h>
#include <sentencepiece_processor.h>

#include <nlohmann/json.hpp>
#include <random>

#include "mixtral/core/file.hpp"
#include "mixtral/text/vocabulary_files.hpp"
#include "support/error_of.hpp"

using namespace mixtral;
using nlohmann::json;

namespace {

const std::filesystem::path kGolden = std::filesystem::path(MIXTRAL_GOLDEN_DIR) / "tokenizer/tokenizer_1";
const std::filesystem::path kTiny = MIXTRAL_TINY_DIR;
constexpr Index kFileLimit = 1 << 24;

std::string read(const std::filesystem::path& path) { return read_file(path, kFileLimit); }

Tokenizer from_model(const std::filesystem::path& dir) {
  return Tokenizer(parse_sentencepiece_model(read(dir / "tokenizer.model")));
}
Tokenizer from_json(const std::filesystem::path& dir) {
  return Tokenizer(parse_tokenizer_json(read(dir / "tokenizer.json")));
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

}  // namespace

TEST_CASE("Every golden text becomes the reference's ids and comes back, with both files") {
  const json cases = json::parse(read(kGolden / "cases.json"));
  for (const Tokenizer& tokenizer : {from_model(kGolden), from_json(kGolden)}) {
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
      CHECK(tokenizer.decode(c.at("ids").get<std::vector<TokenId>>()) ==
            c.at("decoded_sentencepiece").get<std::string>());
    }
  }
}

TEST_CASE("Special tokens that are spelled in a text are ordinary text") {
  const json cases = json::parse(read(kGolden / "cases.json"));
  for (const Tokenizer& tokenizer : {from_model(kGolden), from_json(kGolden)}) {
    for (const json& c : cases.at("special_token_text_tokenizer_json")) {
      const auto text = c.at("text").get<std::string>();
      const auto ids = tokenizer.encode(text);
      for (const TokenId id : ids) CHECK(id >= 3);
      CHECK(tokenizer.decode(ids) == text);
    }
  }
}
