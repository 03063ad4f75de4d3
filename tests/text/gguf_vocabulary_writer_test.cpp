#include <doctest/doctest.h>

#include <limits>

#include "mixtral/io/gguf.hpp"
#include "mixtral/text/tokenizer.hpp"
#include "support/error_of.hpp"
#include "support/golden.hpp"
#include "support/tokenizer_files.hpp"
#include "text/gguf_vocabulary.hpp"

using namespace mixtral;
using nlohmann::json;

namespace {

struct Written {
  std::string bytes;
  std::vector<std::string> notes;

  GgufFile file() && = delete;  // it looks at the bytes
  GgufFile file() const& { return GgufFile(std::as_bytes(std::span(bytes)), "file"); }
  Vocabulary vocabulary() const { return parse_gguf_vocabulary(bytes, "file"); }
};

Written written(const Vocabulary& v, const std::vector<TokenId>& ends = {}) {
  Written out;
  out.bytes = gguf_vocabulary_file(v, {}, ends, "model", out.notes);
  return out;
}

Vocabulary vocabulary_of(const std::vector<std::string>& pieces) {
  Vocabulary v = test::small_vocabulary(pieces);
  v.n_ids = v.size();
  return v;
}

}  // namespace

TEST_CASE("the golden tokenizer from either of its files gives the golden ids through GGUF") {
  const json cases = test::read_json(test::kGoldenTokenizer / "cases.json");
  for (const Tokenizer& own : test::from_both_files(test::kGoldenTokenizer)) {
    Vocabulary v = own.vocabulary();
    v.n_ids = v.size();
    const Tokenizer tokenizer(written(v).vocabulary());
    Index n = 0;
    for (const json& c : cases.at("encode")) {
      const std::string text = c.at("text");
      CAPTURE(text);
      const auto ids = c.at("ids").get<std::vector<TokenId>>();
      CHECK(tokenizer.encode(text) == ids);
      CHECK(tokenizer.encode(text, SpecialTokens::kAll) == own.encode(text, SpecialTokens::kAll));
      CHECK(tokenizer.decode(ids) == c.at("decoded").get<std::string>());
      ++n;
    }
    CHECK(n >= 100);
  }
}

TEST_CASE("the tokens of a fine-tune are found where they were") {
  std::string text = test::read(test::kGoldenTokenizer / "tokenizer.json");
  json file = json::parse(text);
  const auto add = [&](const char* content, int id, bool special) {
    file["added_tokens"].push_back({{"id", id},
                                    {"content", content},
                                    {"special", special},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"single_word", false},
                                    {"normalized", false}});
  };
  add("<|im_start|>", 1024, true);
  add("<|plain|>", 1025, false);
  Vocabulary v = parse_tokenizer_json(file.dump(), "tokenizer.json");
  v.n_ids = 1030;
  const Written gguf = written(v);
  CHECK(gguf.notes.empty());
  const Tokenizer want(v), got(gguf.vocabulary());
  for (const char* sample :
       {"Hello", "<|im_start|>user", "a <|plain|> b<|plain|>", "x<|im_start|><|plain|>", "<s>a</s>"}) {
    CAPTURE(sample);
    for (const SpecialTokens special : {SpecialTokens::kAsText, SpecialTokens::kAdded, SpecialTokens::kAll}) {
      CHECK(got.encode(sample, special) == want.encode(sample, special));
    }
  }
  const auto types = *gguf.file().integers("tokenizer.ggml.token_type");
  CHECK(types[1024] == 3);
  CHECK(types[1025] == 4);
}

TEST_CASE("every id has a token: those without a piece are unused ones") {
  Vocabulary v = vocabulary_of({"a", "b", "ab"});
  v.pieces[5].clear();
  v.types[5] = PieceType::kUnused;
  v.scores[5] = -std::numeric_limits<float>::infinity();
  v.n_ids = v.size() + 2;
  const Written gguf = written(v);
  const GgufFile file = gguf.file();
  const auto tokens = *file.texts("tokenizer.ggml.tokens");
  REQUIRE(tokens.size() == 9);
  CHECK(tokens[5] == "[PAD5]");
  CHECK(tokens[6] == "ab");
  CHECK(tokens[8] == "[PAD8]");
  const auto types = *file.integers("tokenizer.ggml.token_type");
  CHECK(types[5] == 5);
  CHECK(types[8] == 5);
  CHECK(file.floats("tokenizer.ggml.scores")->at(5) == std::numeric_limits<float>::lowest());
  CHECK(Tokenizer(gguf.vocabulary()).encode("aab") == Tokenizer(v).encode("aab"));
}

TEST_CASE("a piece that no merge makes stays one that no text becomes") {
  Vocabulary v = vocabulary_of({"a", "b", "ab", "abb"});
  v.scores[7] = -std::numeric_limits<float>::infinity();
  const Tokenizer want(v), got(written(v).vocabulary());
  for (const char* text : {"ab", "abb", "aabbab"}) CHECK(got.encode(text) == want.encode(text));
  CHECK(got.vocabulary().types[7] == PieceType::kUnused);
  CHECK(got.vocabulary().types[6] == PieceType::kNormal);
}

TEST_CASE("the special tokens, what ends a sequence and the space in front are keys") {
  Vocabulary v = vocabulary_of({"a", "<end>", "<more>", "<most>"});
  v.add_bos = true;
  const Written plain = written(v);
  const GgufFile first = plain.file();
  CHECK(first.text("tokenizer.ggml.model") == "llama");
  CHECK(first.integer("tokenizer.ggml.unknown_token_id", 0, 9) == 0);
  CHECK(first.integer("tokenizer.ggml.bos_token_id", 0, 9) == 1);
  CHECK(first.integer("tokenizer.ggml.eos_token_id", 0, 9) == 2);
  CHECK(first.find_key("tokenizer.ggml.eot_token_id") == nullptr);
  CHECK(first.boolean("tokenizer.ggml.add_bos_token") == true);
  CHECK(first.boolean("tokenizer.ggml.add_eos_token") == false);
  CHECK(first.boolean("tokenizer.ggml.add_space_prefix") == true);
  CHECK(first.find_key("tokenizer.chat_template") == nullptr);

  v.space_prefix = SpacePrefix::kNone;
  v.add_bos = false;
  v.bos_id = -1;
  const Written more = written(v, {2, 5, 6, 7});
  const GgufFile second = more.file();
  CHECK(second.find_key("tokenizer.ggml.bos_token_id") == nullptr);
  CHECK(second.integer("tokenizer.ggml.eos_token_id", 0, 9) == 2);
  CHECK(second.integer("tokenizer.ggml.eot_token_id", 0, 9) == 5);
  CHECK(second.integer("tokenizer.ggml.eom_token_id", 0, 9) == 6);
  CHECK(second.boolean("tokenizer.ggml.add_bos_token") == false);
  CHECK(second.boolean("tokenizer.ggml.add_space_prefix") == false);
  REQUIRE(more.notes.size() == 1);
  CHECK(more.notes[0] == "model: id 7 ends a sequence, too: a GGUF file can name only three");
}

TEST_CASE("rules that such keys cannot say are noted") {
  Vocabulary v = vocabulary_of({"a"});
  CHECK(written(v).notes.empty());
  v.space_prefix = SpacePrefix::kUnlessSpace;
  CHECK(written(v).notes.size() == 1);
  v = vocabulary_of({"a", "<x>"});
  v.added.push_back({.id = 5, .own_piece = true, .lstrip = true});
  CHECK(written(v).notes.size() == 1);
}

TEST_CASE("more pieces than the model has rows are refused with both numbers") {
  Vocabulary v = vocabulary_of({"a"});
  v.n_ids = 4;
  const Error error = test::error_of([&] { written(v); });
  CHECK(error.code() == ErrorCode::kUnsupported);
  CHECK(test::names(error, "model: the tokenizer has 5 pieces, the model 4 rows"));
}

TEST_CASE("the keys of a GGUF file pass as they are, and no files are no keys") {
  const std::filesystem::path path = test::golden_dir() / "gguf/models/S_f16.gguf";
  const std::vector<EmbeddedFile> files = read_tokenizer_files(path);
  std::vector<std::string> notes;
  CHECK(gguf_tokenizer(files, "model", 1024, {}, notes) == files.at(0).contents);
  CHECK(gguf_tokenizer({}, "model", 1024, {}, notes).empty());
  CHECK(notes.empty());
}
