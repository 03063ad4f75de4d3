#include <doctest/doctest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "support/error_of.hpp"
#include "support/mutate.hpp"
#include "support/temp_dir.hpp"
#include "support/tokenizer_files.hpp"

using namespace mixtral;
using nlohmann::json;
using test::error_of;
using test::names;

namespace {

json golden_json() { return test::read_json(test::kGoldenTokenizer / "tokenizer.json"); }

Vocabulary parse(const json& document) { return parse_tokenizer_json(document.dump(), "file"); }

void check_refused(const std::function<void(json&)>& damage, ErrorCode code, const std::string& part) {
  json document = golden_json();
  damage(document);
  const Error error = error_of([&] { parse(document); });
  CHECK(error.code() == code);
  CHECK(names(error, "file: "));
  CHECK(names(error, part));
}

void check_text_refused(const std::string& text, const std::string& part) {
  const Error error = error_of([&] { parse_tokenizer_json(text, "file"); });
  CHECK(error.code() == ErrorCode::kBadFormat);
  CHECK(names(error, part));
}

// The position of a merge that makes the same piece as an earlier one.
std::size_t other_way_to_merge(const json& merges) {
  std::set<std::string> made;
  for (std::size_t i = 0; i < merges.size(); ++i) {
    auto piece = merges[i].get<std::string>();
    piece.erase(piece.find(' '), 1);
    if (!made.insert(piece).second) return i;
  }
  FAIL("every piece is made in one way");
  return 0;
}

// One random value of the document replaced or removed.
void mutate_value(json& value, std::mt19937& random) {
  if (value.is_structured() && !value.empty() && random() % 4 != 0) {
    auto child = value.begin();
    std::advance(child, static_cast<json::difference_type>(random() % value.size()));
    if (random() % 4 == 0) {
      value.erase(child);
    } else {
      mutate_value(*child, random);
    }
    return;
  }
  static const json kValues[] = {nullptr,
                                 true,
                                 false,
                                 -1,
                                 0,
                                 700,
                                 1.5,
                                 1e300,
                                 18446744073709551615u,
                                 "",
                                 "a",
                                 "<s>",
                                 "a b",
                                 json::array(),
                                 json::object(),
                                 json::array({"a", "b"})};
  value = kValues[random() % std::size(kValues)];
}

bool works(const std::string& text) {
  try {
    const Tokenizer tokenizer(parse_tokenizer_json(text));
    CHECK_NOTHROW(tokenizer.decode(tokenizer.encode("Hello  w\xC3\xB6rld 123\n\xFF<s>")));
    return true;
  } catch (const Error& error) {
    CHECK(error.code() != ErrorCode::kInternal);
    return false;
  }
}

}  // namespace

TEST_CASE("Merges as pairs and merges as strings are the same") {
  json document = golden_json();
  const Vocabulary want = parse(document);
  for (json& merge : document["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    const std::size_t space = text.find(' ');
    merge = json::array({text.substr(0, space), text.substr(space + 1)});
  }
  const Vocabulary got = parse(document);
  CHECK(got.pieces == want.pieces);
  CHECK(got.scores == want.scores);
}

TEST_CASE("Newer files escape spaces in the pre-tokenizer") {
  json document = golden_json();
  document["normalizer"] = nullptr;
  document["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", kSpaceSymbol}, {"prepend_scheme", "first"}, {"split", false}};
  CHECK(parse(document).space_prefix == SpacePrefix::kUnlessSpace);
  CHECK(Tokenizer(parse(document)).encode("a b") == Tokenizer(parse(golden_json())).encode("a b"));
  document["pre_tokenizer"]["prepend_scheme"] = "never";
  document["decoder"]["decoders"].erase(3);
  CHECK(parse(document).space_prefix == SpacePrefix::kNone);
  document["pre_tokenizer"]["split"] = true;
  CHECK(names(error_of([&] { parse(document); }), "pre_tokenizer"));
}

TEST_CASE("The post-processor says whether prompts begin with BOS") {
  json document = golden_json();
  CHECK(parse(document).add_bos);
  document["post_processor"] = nullptr;
  CHECK_FALSE(parse(document).add_bos);
  CHECK(parse(document).bos_id == 1);
}

TEST_CASE("A part of the pipeline that is not ours is unsupported, by name") {
  using enum ErrorCode;
  check_refused([](json& j) { j["model"]["type"] = "Unigram"; }, kUnsupported,
                "model: type is not supported: \"Unigram\"");
  check_refused([](json& j) { j["model"]["dropout"] = 0.1; }, kUnsupported, "dropout");
  check_refused([](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }, kUnsupported, "end_of_word_suffix");
  check_refused([](json& j) { j["model"]["ignore_merges"] = true; }, kUnsupported, "ignore_merges");
  check_refused([](json& j) { j["normalizer"] = {{"type", "NFKC"}}; }, kUnsupported, "normalizer");
  check_refused([](json& j) { j["normalizer"] = nullptr; }, kUnsupported, "pre_tokenizer");
  check_refused([](json& j) { j["pre_tokenizer"] = {{"type", "ByteLevel"}}; }, kUnsupported, "ByteLevel");
  check_refused([](json& j) { j["decoder"] = {{"type", "ByteLevel"}}; }, kUnsupported, "decoder");
  check_refused([](json& j) { j["decoder"]["decoders"].erase(3); }, kUnsupported, "decoder");
  check_refused([](json& j) { j["post_processor"]["type"] = "BertProcessing"; }, kUnsupported, "post_processor");
  // SentencePiece would make the piece in the way that the file does not list.
  check_refused([](json& j) { j["model"]["merges"].erase(other_way_to_merge(j["model"]["merges"])); }, kUnsupported,
                "not made from a SentencePiece model");
}

TEST_CASE("A broken document is refused with the culprit") {
  using enum ErrorCode;
  check_refused([](json& j) { j = json::array(); }, kBadFormat, "expected an object");
  check_refused([](json& j) { j["model"]["vocab"]["zz"] = 5000; }, kBadFormat, "no piece has id 1024");
  check_refused([](json& j) { j["model"]["vocab"]["zz"] = 700; }, kBadFormat, "id 700 is both");
  check_refused([](json& j) { j["model"]["vocab"]["zz"] = 1e9; }, kBadFormat, "id of \"zz\"");
  check_refused([](json& j) { j["model"]["vocab"]["zz"] = -1; }, kBadFormat, "id of \"zz\"");
  check_refused([](json& j) { j["model"]["vocab"]["zz"] = 18446744073709551615u; }, kBadFormat, "id of \"zz\"");
  check_refused([](json& j) { j["model"]["vocab"][""] = 1024; }, kBadFormat, "piece 1024 is empty");
  check_refused([](json& j) { j["model"]["merges"][3] = "a"; }, kBadFormat, "merge 3");
  check_refused([](json& j) { j["model"]["merges"][3] = "a b c"; }, kBadFormat, "merge 3");
  check_refused([](json& j) { j["model"]["merges"][3] = {"a"}; }, kBadFormat, "merge 3");
  check_refused([](json& j) { j["model"]["merges"][3] = "q q"; }, kBadFormat, "merge 3: \"q\"");
  check_refused([](json& j) { j["model"]["unk_token"] = "<none>"; }, kBadFormat, "<none>");
  check_refused([](json& j) { j["model"]["byte_fallback"] = 1; }, kBadFormat, "byte_fallback");
  check_refused([](json& j) { j["added_tokens"][0]["id"] = 5; }, kBadFormat, "id 5 is both");
  check_text_refused("", "file: ");
  check_text_refused("{\"a\": 1, \"a\": 2}", "key \"a\" is given twice");
  check_text_refused(std::string(100'000, '['), "nested deeper than 64");
  check_text_refused("{\"a\": \"\xFF\"}", "file: ");
}

TEST_CASE("Added tokens are control pieces if special and user-defined pieces if not") {
  json document = golden_json();
  document["added_tokens"].push_back({{"id", 1024}, {"content", "<|im_end|>"}, {"special", true}, {"lstrip", true}});
  document["added_tokens"].push_back({{"id", 1025}, {"content", "<tool>"}, {"special", false}, {"normalized", false}});
  const Tokenizer tokenizer(parse(document));
  CHECK(tokenizer.vocabulary().types[1024] == PieceType::kControl);
  CHECK(tokenizer.vocabulary().types[1025] == PieceType::kUserDefined);
  CHECK(tokenizer.encode("a<tool>").back() == 1025);
}

TEST_CASE("A directory prefers tokenizer.model and obeys tokenizer_config.json") {
  const test::TempDir dir;
  CHECK(error_of([&] { load_vocabulary(dir.path()); }).code() == ErrorCode::kNotFound);
  test::write_text(dir / "tokenizer.json", test::read(test::tiny_dir() / "tokenizer.json"));
  CHECK(load_vocabulary(dir.path()).size() == 4096);
  test::write_text(dir / "tokenizer.model", test::read(test::kGoldenTokenizer / "tokenizer.model"));
  CHECK(load_vocabulary(dir.path()).size() == 1024);
  CHECK(load_vocabulary(dir.path()).add_bos);
  test::write_text(dir / "tokenizer_config.json",
                   R"({"add_bos_token": false, "bos_token": {"content": "</s>"}, "eos_token": "<none>"})");
  const Vocabulary v = load_vocabulary(dir.path());
  CHECK_FALSE(v.add_bos);
  CHECK(v.bos_id == 2);
  CHECK(v.eos_id == -1);
  test::write_text(dir / "tokenizer_config.json", R"({"add_bos_token": 1})");
  CHECK(names(error_of([&] { load_vocabulary(dir.path()); }), "tokenizer_config.json: add_bos_token"));
}

TEST_CASE("A directory's tokenizer may be numbered as Mistral numbers it; tekken.json is refused by name") {
  const std::string model = test::read(test::kGoldenTokenizer / "tokenizer.model");
  for (const char* name : {"tokenizer.model.v1", "tokenizer.model.v2", "tokenizer.model.v3"}) {
    CAPTURE(name);
    const test::TempDir dir;
    CHECK_FALSE(find_tokenizer_file(dir.path()).has_value());
    test::write_text(dir / name, model);
    CHECK(find_tokenizer_file(dir.path()) == dir / name);
    CHECK(load_vocabulary(dir.path()).size() == 1024);
    test::write_text(dir / name, "x");
    CHECK(names(error_of([&] { load_vocabulary(dir.path()); }), name));
  }
  const test::TempDir dir;
  test::write_text(dir / "tekken.json", "{}");
  const Error error = error_of([&] { load_vocabulary(dir.path()); });
  CHECK(error.code() == ErrorCode::kUnsupported);
  CHECK(names(error, "tekken.json: Tekken tokenizers are not supported"));
  test::write_text(dir / "tokenizer.model.v3", model);
  CHECK(load_vocabulary(dir.path()).size() == 1024);
}

TEST_CASE("3000 mutated tokenizer.json files give an Error or a working tokenizer") {
  const json original = golden_json();
  const std::string text = original.dump();
  std::mt19937 random(20240118);
  int loaded = 0, refused = 0;
  for (int i = 0; i < 3000; ++i) {
    json document;
    if (i % 2 == 0) {
      document = original;
      mutate_value(document, random);
    }
    ++(works(i % 2 == 0 ? document.dump() : test::mutate(text, random)) ? loaded : refused);
  }
  MESSAGE(loaded, " loaded, ", refused, " refused");
  CHECK(loaded > 100);
  CHECK(refused > 300);
}
