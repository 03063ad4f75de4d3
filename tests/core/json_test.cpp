#include "core/json.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "mixtral/core/error.hpp"
#include "support/error_of.hpp"
#include "support/float_environments.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using json::ObjectReader;
using json::Value;
using test::error_of;
using test::names;

TEST_CASE("values keep their kind, and integers that fit stay exact") {
  const Value value =
      json::parse(R"({"n":null,"t":true,"i":-9223372036854775808,"m":9223372036854775807,"big":9223372036854775808,)"
                  R"("r":1.50,"s":"\u00e9\n","a":[1,[],{}],"o":{"x":1}})",
                  "f");
  const ObjectReader reader(value, "f");
  const json::Object& object = *value.get<json::Object>();
  CHECK(object.size() == 9);
  CHECK(object.front().key == "n");
  CHECK(object.front().value.get<std::nullptr_t>() != nullptr);
  CHECK(reader.find("n") == nullptr);
  CHECK(*reader.find("t")->get<bool>());
  CHECK(*reader.find("i")->get<Index>() == std::numeric_limits<Index>::min());
  CHECK(*reader.find("m")->get<Index>() == std::numeric_limits<Index>::max());
  CHECK(reader.find("big")->get<json::Real>()->text == "9223372036854775808");
  CHECK(reader.find("r")->get<json::Real>()->value == 1.5);
  CHECK(reader.find("r")->get<json::Real>()->text == "1.50");
  CHECK(*reader.find("s")->get<std::string>() == "\u00e9\n");
  CHECK(reader.find("a")->get<json::Array>()->size() == 3);
  CHECK(reader.optional_object("o")->integer("x", 0, 1) == 1);
  CHECK(!reader.optional_object("n").has_value());
}

TEST_CASE("what is not JSON is refused with the name and the place") {
  const struct {
    std::string text;
    std::string reason;
  } cases[] = {
      {"", "name.json: is empty"},
      {" ", "parse error at line 1, column 2"},
      {"{", "parse error"},
      {"{} {}", "parse error"},
      {"{\n\"a\":NaN 1}", "parse error at line 2, column 9"},
      {"[NaNN]", "parse error at line 1, column 5"},
      {"[-NaN]", "parse error at line 1, column 3"},
      {"[+Infinity]", "parse error at line 1, column 2"},
      {"[Infinit]", "parse error at line 1, column 2"},
      {"[nan]", "parse error"},
      {"{NaN:1}", "parse error: NaN in the place of a key"},
      {"{} \"NaN\\\"", "parse error"},
      {std::string("{}\0", 3), "byte 2 is NUL"},
      {std::string("[\"\0\"]", 5), "byte 2 is NUL"},
      {"[1e999]", "number overflow parsing '1e999'"},
      {"[01]", "parse error"},
      {"\"\xff\"", "ill-formed UTF-8"},
      {"[1,]", "parse error"},
      {"// x\n1", "parse error"},
      {"{\"a\":1,\"b\":{\"c\":1,\"c\":2}}", "key \"c\" is given twice"},
      {"{\"\\u0061\":1,\"a\":2}", "key \"a\" is given twice"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.text);
    const Error error = error_of([&] { json::parse(c.text, "name.json"); });
    CHECK(error.code() == ErrorCode::kBadFormat);
    CHECK(names(error, "name.json: "));
    CHECK(names(error, c.reason));
  }
}

TEST_CASE("the words for numbers that are not finite are values, and no strings") {
  const Value value = json::parse(
      R"({"NaN":"NaN","a\"":NaN,"b":[-Infinity,"\\",Infinity],"c":"Infinity","-Infinity\\":" NaN, -Infinity"})", "f");
  const json::Object& object = *value.get<json::Object>();
  CHECK(object.size() == 5);
  CHECK(object[0].key == "NaN");
  CHECK(*object[0].value.get<std::string>() == "NaN");
  CHECK(object[1].key == "a\"");
  CHECK(std::isnan(object[1].value.get<json::Real>()->value));
  CHECK(json::describe(object[1].value) == "NaN");
  const json::Array& list = *object[2].value.get<json::Array>();
  CHECK(list[0].get<json::Real>()->value == -std::numeric_limits<double>::infinity());
  CHECK(*list[1].get<std::string>() == "\\");
  CHECK(list[2].get<json::Real>()->value == std::numeric_limits<double>::infinity());
  CHECK(*object[3].value.get<std::string>() == "Infinity");
  CHECK(object[4].key == "-Infinity\\");
  CHECK(*object[4].value.get<std::string>() == " NaN, -Infinity");
  CHECK(std::isnan(json::parse("NaN", "f").get<json::Real>()->value));
}

TEST_CASE("64 levels of nesting are read, 65 refused, a million without harm") {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  CHECK_NOTHROW(json::parse(nested(64), "f"));
  CHECK(names(error_of([&] { json::parse(nested(65), "f"); }), "nested deeper than 64 levels"));
  CHECK(names(error_of([&] { json::parse(nested(1'000'000), "f"); }), "nested deeper than 64 levels"));
}

TEST_CASE("a file above its limit is refused before it is read") {
  const test::TempDir dir;
  test::write_text(dir / "f.json", "[1, 2]");
  CHECK(json::parse_file(dir / "f.json", 6).get<json::Array>()->size() == 2);
  CHECK(names(error_of([&] { json::parse_file(dir / "f.json", 5); }), "f.json: 6 bytes, expected at most 5"));
}

TEST_CASE("a stranger's text is escaped and cut in messages") {
  CHECK(json::quote("a\"b\n") == R"("a\"b\n")");
  CHECK(json::quote("\xff\xfe").find('\xff') == std::string::npos);
  CHECK(json::quote(std::string(1000, 'x')).size() < 110);
  CHECK(json::quote(std::string(95, 'x') + "\u00e9").size() < 110);  // cut inside a character
}

TEST_CASE("getters name the key, the offending value and what was expected") {
  const Value value = json::parse(
      R"({"neg":-8,"str":"8","real":8.0,"huge":1e31,"f32":1e39,"null":null,"arr":[1,"x"],"obj":{"k":[]},"t":1,)"
      R"("nan":NaN,"inf":-Infinity})",
      "f");
  const ObjectReader reader(value, "dir/f");
  const struct {
    std::function<void()> get;
    std::string message;
  } cases[] = {
      {[&] { reader.integer("neg", 1, 9); }, "dir/f: neg is -8, expected an integer from 1 to 9"},
      {[&] { reader.integer("str", 1, 9); }, "dir/f: str is \"8\", expected an integer from 1 to 9"},
      {[&] { reader.integer("real", 1, 9); }, "dir/f: real is 8.0, expected an integer"},
      {[&] { reader.integer("huge", 1, 9); }, "dir/f: huge is 1e31, expected an integer"},
      {[&] { reader.integer("absent", 1, 9); }, "dir/f: absent is missing"},
      {[&] { reader.integer("null", 1, 9); }, "dir/f: null is null"},
      {[&] { reader.integer("nan", 1, 9); }, "dir/f: nan is NaN, expected an integer"},
      {[&] { reader.optional_number("nan", 0, 1); }, "dir/f: nan is NaN, expected a number from 0 to 1"},
      {[&] { reader.number("inf", 0, 1); }, "dir/f: inf is -Infinity, expected a number from 0 to 1"},
      {[&] { reader.number("absent", 0, 1); }, "dir/f: absent is missing"},
      {[&] { reader.optional_number("f32", 0, 1e38f); }, "dir/f: f32 is 1e39, expected a number from 0 to 1e+38"},
      {[&] { reader.optional_number("neg", 0, 1); }, "dir/f: neg is -8, expected a number"},
      {[&] { reader.optional_number("str", 0, 1); }, "dir/f: str is \"8\", expected a number"},
      {[&] { reader.boolean("t", false); }, "dir/f: t is 1, expected true or false"},
      {[&] { reader.optional_string("obj"); }, "dir/f: obj is an object, expected a string"},
      {[&] { reader.integer_or_list("arr", 0, 9); }, "dir/f: arr[1] is \"x\", expected an integer from 0 to 9"},
      {[&] { reader.integer_or_list("neg", 0, 9); }, "dir/f: neg is -8, expected an integer from 0 to 9"},
      {[&] { reader.at("null"); }, "dir/f: null is null"},
      {[&] { reader.string("absent"); }, "dir/f: absent is missing"},
      {[&] { reader.optional_array("obj"); }, "dir/f: obj is an object, expected an array"},
      {[&] { reader.object("arr"); }, "dir/f: arr is an array, expected an object"},
      {[&] { reader.object("absent"); }, "dir/f: absent is missing"},
      {[&] { reader.optional_object("obj")->integer("k", 0, 1); }, "dir/f: obj: k is an array, expected an integer"},
      {[&] { reader.optional_object("t"); }, "dir/f: t: 1, expected an object"},
  };
  for (const auto& c : cases) {
    const Error error = error_of(c.get);
    CHECK(error.code() == ErrorCode::kBadFormat);
    CHECK(names(error, c.message));
  }
  CHECK(reader.has("null"));
  CHECK(!reader.has("absent"));
  CHECK(reader.optional_integer("absent", 1, 9) == std::nullopt);
  CHECK(reader.optional_number("real", 0, 9) == 8.0f);
  CHECK(reader.integer_or_list("absent", 0, 9).empty());
  CHECK(reader.integer_or_list("t", 0, 9) == std::vector<Index>{1});
  CHECK(reader.boolean("absent", true));
  CHECK(reader.optional_string("absent") == nullptr);
  CHECK(reader.optional_array("null") == nullptr);
  CHECK(reader.string("str") == "8");
}

TEST_CASE("a member that is neither known nor null is refused with its value, inside an object with that in front") {
  const Value value = json::parse(R"({"a":1,"later":null,"o":{"a":[],"b":"x"}})", "f");
  const ObjectReader reader(value, "f");
  constexpr std::string_view kA[] = {"a"}, kBoth[] = {"a", "o"};
  CHECK_NOTHROW(reader.require_known(kBoth));
  Error error = error_of([&] { reader.require_known(kA); });
  CHECK(error.code() == ErrorCode::kUnsupported);
  CHECK(names(error, "f: \"o\" is an object, which is not supported"));
  error = error_of([&] { reader.optional_object("o")->require_known(kA); });
  CHECK(names(error, "f: o: \"b\" is \"x\", which is not supported"));
}

TEST_CASE("dump gives equal values equal texts, in ASCII") {
  const Value value =
      json::parse("{\"b\": [1, -2.50, null, [], {}], \"a\\n\": {\"d\": true, \"c\": \"\xE2\x96\x81\"}}", "f");
  const std::string text = json::dump(value);
  CHECK(text == R"({"a\n":{"c":"\u2581","d":true},"b":[1,-2.50,null,[],{}]})");
  CHECK(json::dump(json::parse(text, "f")) == text);
}

TEST_CASE("numbers are read to the same bits in any floating-point environment of the host") {
  test::check_in_every_float_environment([] {
    const Value value =
        json::parse(R"({"a": 0.1, "b": 1e-40, "c": 1e-5, "d": 16777217, "e": 0.30000001192092901})", "text");
    const ObjectReader json(value, "text");
    std::vector<float> out;
    for (const char* key : {"a", "b", "c", "d", "e"}) out.push_back(*json.optional_number(key, 0, 1e9f));
    return out;
  });
}
