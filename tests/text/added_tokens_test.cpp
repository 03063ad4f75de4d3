#include "text/added_tokens.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "mixtral/text/stream_decoder.hpp"
#include "support/error_of.hpp"
#include "support/tokenizer_files.hpp"

using namespace mixtral;
using nlohmann::json;
using test::error_of;
using test::names;
using Ids = std::vector<TokenId>;

namespace {

json golden_json() { return test::read_json(test::kGoldenTokenizer / "tokenizer.json"); }
Tokenizer of(const json& document) { return Tokenizer(parse_tokenizer_json(document.dump(), "file")); }

// The golden directory's files under names, and some that are made up.
Tokenizer from_files(std::initializer_list<EmbeddedFile> files) {
  return Tokenizer(parse_tokenizer_files(std::vector<EmbeddedFile>(files), "dir"));
}
EmbeddedFile golden_model() { return {"tokenizer.model", test::read(test::kGoldenTokenizer / "tokenizer.model")}; }

json token(int id, const std::string& content, bool special) {
  return {{"id", id}, {"content", content}, {"special", special}, {"normalized", false}};
}

Ids joined(std::initializer_list<Ids> parts) {
  Ids all;
  for (const Ids& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace

TEST_CASE("Added tokens of 65 configurations in 300 texts each have the ids of Hugging Face's tokenizers library") {
  const json cases = test::read_json(test::golden_dir() / "tokenizer/added_tokens/cases.json");
  REQUIRE(cases.size() == 65);
  std::size_t n_texts = 0;
  for (const json& one : cases) {
    CAPTURE(one["name"].get<std::string>());
    json document = golden_json();
    for (const auto& [key, value] : one["patch"].items()) document[key] = value;
    const Tokenizer tokenizer = of(document);
    for (std::size_t i = 0; i < one["texts"].size(); ++i, ++n_texts) {
      const auto text = one["texts"][i].get<std::string>();
      CAPTURE(text);
      CHECK(tokenizer.encode(text, SpecialTokens::kAll) == one["ids"][i].get<Ids>());
    }
  }
  CHECK(n_texts == 65 * 300);
}

TEST_CASE("Special tokens in a text are tokens only where the caller wants that") {
  json document = golden_json();
  document["added_tokens"].push_back(token(1024, "<|im_end|>", true));
  document["added_tokens"].push_back(token(1025, "<tool>", false));
  const Tokenizer tokenizer = of(document);
  const Ids as_text = tokenizer.encode("<s>a<|im_end|><tool>");
  CHECK(std::count(as_text.begin(), as_text.end(), 1) == 0);
  CHECK(std::count(as_text.begin(), as_text.end(), 1024) == 0);
  CHECK(as_text.back() == 1025);  // not special: always a token
  const Ids added = tokenizer.encode("<s>a<|im_end|><tool>", SpecialTokens::kAdded);
  CHECK(std::count(added.begin(), added.end(), 1) == 0);
  CHECK(std::count(added.begin(), added.end(), 1024) == 1);
  CHECK(tokenizer.encode("<s>a<|im_end|><tool>", SpecialTokens::kAll) ==
        joined({{1}, tokenizer.encode("a"), {1024, 1025}}));
}

TEST_CASE("Texts that spell special tokens have the golden ids if the caller wants them found") {
  const json cases = test::read_json(test::kGoldenTokenizer / "cases.json")["special_token_text_tokenizer_json"];
  REQUIRE(!cases.empty());
  for (const json& one : cases) {
    CAPTURE(one.dump());
    CHECK(of(golden_json()).encode(one["text"].get<std::string>(), SpecialTokens::kAll) ==
          one["ids_without_bos"].get<Ids>());
  }
}

TEST_CASE("A special token that is not wanted still hides what it covers") {
  json document = golden_json();
  document["added_tokens"].push_back(token(1024, "<|end|>", true));
  document["added_tokens"].push_back(token(1025, "end|>x", false));
  const Ids ids = of(document).encode("<|end|>x");
  CHECK(std::count(ids.begin(), ids.end(), 1025) == 0);
  CHECK(of(document).encode("end|>x").back() == 1025);
}

TEST_CASE("An id without a piece decodes to nothing, below the model's rows") {
  json document = golden_json();
  document["added_tokens"].push_back(token(1024, "<|im_end|>", true));
  Vocabulary v = parse_tokenizer_json(document.dump(), "file");
  CHECK(names(error_of([&] { Tokenizer(v).decode(Ids{1030}); }), "1030 is outside the vocabulary of 1025"));
  v.n_ids = 1040;
  const Tokenizer tokenizer(v);
  CHECK(tokenizer.decode(Ids{266, 1030, 1024, 266}) == "a a");
  CHECK(tokenizer.token_bytes(1039).empty());
  CHECK(names(error_of([&] { tokenizer.decode(Ids{1040}); }), "1040 is outside the vocabulary of 1040"));
  StreamDecoder decoder(tokenizer);
  CHECK(decoder.push(242).empty());  // the first byte of two: no character follows
  CHECK(decoder.push(1030) == "\xEF\xBF\xBD");
}

TEST_CASE("tokenizer.json: an added token's id counts on, whatever the file says, and its user is told") {
  json document = golden_json();
  document["added_tokens"].push_back(token(1030, "<|im_end|>", true));
  const Vocabulary v = parse_tokenizer_json(document.dump(), "file");
  CHECK(v.size() == 1025);
  CHECK(v.find("<|im_end|>") == 1024);
  REQUIRE(v.notes.size() == 1);
  CHECK(v.notes[0].find("\"<|im_end|>\" has id 1024") != std::string::npos);
}

TEST_CASE("Beside tokenizer.model the tokens of added_tokens_decoder are cut out first, with the gaps of their ids") {
  const Tokenizer base = from_files({golden_model()});
  const json config = {{"added_tokens_decoder",
                        {{"1026", {{"content", "<|im_end|>"}, {"special", true}}},
                         {"1030", {{"content", "<|im_start|>"}, {"special", false}}}}}};
  const Tokenizer tokenizer = from_files({golden_model(), {"tokenizer_config.json", config.dump()}});
  CHECK(tokenizer.vocabulary().size() == 1031);
  CHECK(tokenizer.encode("<|im_start|>a") == joined({{1030}, base.encode("a")}));
  CHECK(tokenizer.encode("x <|im_start|> a") == joined({base.encode("x "), {1030}, base.encode(" a")}));
  CHECK(tokenizer.encode("x<|im_end|>", SpecialTokens::kAdded) == joined({base.encode("x"), {1026}}));
  CHECK(tokenizer.encode("x<|im_end|>") == base.encode("x<|im_end|>"));
  CHECK(tokenizer.encode("<s>x", SpecialTokens::kAll) == joined({{1}, base.encode("x")}));
  CHECK(tokenizer.decode(Ids{266, 1024, 1029, 266, 1030}) == "a a<|im_start|>");
}

TEST_CASE("added_tokens.json is read where the configuration lists no tokens; named ones are special") {
  const json map = {{"eos_token", {{"content", "<|im_end|>"}}}, {"additional_special_tokens", {"<tool>"}}};
  const Tokenizer tokenizer =
      from_files({golden_model(),
                  {"added_tokens.json", R"({"<|im_start|>": 1025, "<|im_end|>": 1024, "<tool>": 1026})"},
                  {"special_tokens_map.json", map.dump()}});
  const Vocabulary& v = tokenizer.vocabulary();
  CHECK(v.eos_id == 1024);
  CHECK(v.types[1024] == PieceType::kControl);
  CHECK(v.types[1025] == PieceType::kUserDefined);
  CHECK(v.types[1026] == PieceType::kControl);
  CHECK(tokenizer.encode("<|im_start|>").front() == 1025);
  CHECK(names(error_of([&] {
                from_files({golden_model(), {"added_tokens.json", R"({"<x>": 700})"}});
              }),
              "id 700 is both"));
  CHECK(names(error_of([&] {
                from_files({golden_model(), {"added_tokens.json", R"({"<x>": "1"})"}});
              }),
              "added_tokens.json: id of \"<x>\""));
}

TEST_CASE("transformers' rules: white space of all kinds is stripped, and a word that goes on is none") {
  const Tokenizer base = from_files({golden_model()});
  const json config = {{"added_tokens_decoder",
                        {{"1024", {{"content", "<m>"}, {"lstrip", true}, {"rstrip", true}}},
                         {"1025", {{"content", "size"}, {"single_word", true}}}}}};
  const Tokenizer tokenizer = from_files({golden_model(), {"tokenizer_config.json", config.dump()}});
  CHECK(tokenizer.encode("a \t<m>\n\x1C b") == joined({base.encode("a"), {1024}, base.encode("b")}));
  CHECK(tokenizer.encode("a size b") == joined({base.encode("a "), {1025}, base.encode(" b")}));
  CHECK(tokenizer.encode("asize b") == joined({base.encode("asize"), base.encode(" b")}));
  CHECK(tokenizer.encode("a sizes") == joined({base.encode("a "), base.encode("sizes")}));
}

TEST_CASE("legacy: false puts one space before the whole text; a named token at its beginning takes its place") {
  const Tokenizer base = from_files({golden_model()});
  const json config = {{"legacy", false},
                       {"eos_token", "<|im_end|>"},
                       {"added_tokens_decoder",
                        {{"1024", {{"content", "<|im_end|>"}, {"special", true}}},
                         {"1025", {{"content", "<tool>"}, {"special", false}}}}}};
  const Tokenizer tokenizer = from_files({golden_model(), {"tokenizer_config.json", config.dump()}});
  const Tokenizer bare = from_files({golden_model(), {"tokenizer_config.json", R"({"add_prefix_space": false})"}});
  const TokenId space = base.vocabulary().find(kSpaceSymbol);
  REQUIRE(space >= 0);
  CHECK(tokenizer.encode("Hello") == base.encode("Hello"));
  CHECK(tokenizer.encode("a<tool>b") == joined({base.encode("a"), {1025}, bare.encode("b")}));
  CHECK(tokenizer.encode("<tool>b") == joined({{space, 1025}, bare.encode("b")}));
  CHECK(tokenizer.encode("<|im_end|>b", SpecialTokens::kAll) == joined({{1024}, bare.encode("b")}));
  CHECK(tokenizer.encode_more("b") == bare.encode("b"));
  CHECK(bare.encode("Hello") != base.encode("Hello"));
  CHECK(bare.decode(bare.encode("Hello")) == "Hello");
}

TEST_CASE("A tokenizer.json beside tokenizer.model rules its added tokens, if it has the same pieces") {
  json document = golden_json();
  document["added_tokens"].push_back({{"id", 1024}, {"content", "<m>"}, {"rstrip", true}, {"normalized", false}});
  const json config = {{"added_tokens_decoder", {{"1024", {{"content", "<other>"}}}}}};
  const auto load = [&] {
    return from_files({golden_model(), {"tokenizer.json", document.dump()}, {"tokenizer_config.json", config.dump()}});
  };
  CHECK(load().encode("a<m> b") == of(document).encode("a<m> b"));
  CHECK(load().vocabulary().find("<m>") == 1024);
  CHECK(load().vocabulary().notes.empty());
  document["model"]["vocab"]["zz"] = 1024;
  CHECK(load().vocabulary().find("<other>") == 1024);
  REQUIRE(load().vocabulary().notes.size() == 1);
  CHECK(load().vocabulary().notes[0].find("not of the same pieces") != std::string::npos);
}

TEST_CASE("A space in front that the configuration asks for and tokenizer.json does not make is refused by name") {
  const EmbeddedFile file{"tokenizer.json", golden_json().dump()};
  const auto load = [&](const char* config) { return from_files({file, {"tokenizer_config.json", config}}); };
  CHECK(load(R"({"add_prefix_space": true})").encode("a") == load("{}").encode("a"));
  const Error error = error_of([&] { load(R"({"add_prefix_space": false})"); });
  CHECK(error.code() == ErrorCode::kUnsupported);
  CHECK(names(error, "tokenizer_config.json: add_prefix_space is false"));
}

TEST_CASE("Added tokens that a file gives twice, without text, or with an id that is no number are refused") {
  const auto refused = [](const json& added, const std::string& text) {
    json document = golden_json();
    document["added_tokens"].push_back(added);
    const Error error = error_of([&] { of(document); });
    CHECK(error.code() == ErrorCode::kBadFormat);
    CHECK(names(error, text));
  };
  refused(token(1024, "", true), "added token 1024 is empty");
  refused(token(2, "</s>", true), "added token 2 is given twice");
  refused(token(-1, "<x>", true), "id of \"<x>\" is -1");
  refused({{"id", 1024}, {"content", "<x>"}, {"lstrip", 1}}, "lstrip is 1, expected true or false");
  refused({{"id", 1024}}, "content is missing");
}

TEST_CASE("No file makes a control piece, BOS or EOS into a token that any text may spell") {
  const json config = {
      {"added_tokens_decoder",
       {{"1", {{"content", "<s>"}, {"special", false}}}, {"2", {{"content", "</s>"}, {"special", false}}}}}};
  const Tokenizer from_model = from_files({golden_model(), {"tokenizer_config.json", config.dump()}});
  json document = golden_json();
  for (json& added : document["added_tokens"]) added["special"] = false;
  const Tokenizer from_json = from_files(
      {{"tokenizer.json", document.dump()}, {"tokenizer_config.json", R"({"bos_token": "<s>", "eos_token": "</s>"})"}});
  for (const Tokenizer& tokenizer : {from_model, from_json}) {
    const Ids ids = tokenizer.encode("a</s><s>b");
    CHECK(std::count(ids.begin(), ids.end(), 1) == 0);
    CHECK(std::count(ids.begin(), ids.end(), 2) == 0);
    CHECK(tokenizer.encode("</s>", SpecialTokens::kAll) == Ids{2});
  }
}

TEST_CASE("A piece that merges make stays one where a file calls it special, and is silent") {
  json document = golden_json();
  const Tokenizer plain = of(document);
  const TokenId the = plain.encode("the")[0];
  document["added_tokens"].push_back({{"id", the},
                                      {"content", plain.vocabulary().pieces[static_cast<std::size_t>(the)]},
                                      {"special", true},
                                      {"single_word", true},
                                      {"normalized", false}});
  const Tokenizer tokenizer = of(document);
  CHECK(tokenizer.encode("the size") == plain.encode("the size"));
  CHECK(tokenizer.decode(Ids{the}).empty());
}

TEST_CASE("Tokens that take white space along take no longer for a long stretch of it") {
  for (const char* flag : {"lstrip", "rstrip"}) {
    json document = golden_json();
    document["added_tokens"].push_back({{"id", 1024}, {"content", "\n"}, {"normalized", false}, {flag, true}});
    CHECK(of(document).encode(std::string(300'000, '\n')).size() == 300'000);  // was minutes
  }
}
