#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "mixtral/runtime/embedding.hpp"
#include "support/golden.hpp"
#include "support/program.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using nlohmann::json;
using test::Answer;
using test::contains;
using test::quoted;
using test::run_program;

namespace {

std::vector<json> lines_of(const std::string& text) {
  std::vector<json> out;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    out.push_back(json::parse(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  return out;
}

}  // namespace

TEST_CASE("embed: a line of JSON for each text, with the library's numbers") {
  const test::TempDir dir;
  const std::filesystem::path file = dir / "texts";
  test::write_text(file, "RETURN VALUE\n\nOn success, zero is returned.\n");
  const LoadedModel model(test::tiny_dir());
  Embedder embedder(model);
  const Answer whole = run_program("embed --text " + quoted(file));
  REQUIRE(whole.status == 0);
  const auto one = lines_of(whole.out);
  REQUIRE(one.size() == 1);
  CHECK(one[0].at("file") == file.string());
  CHECK_FALSE(one[0].contains("line"));
  const auto ids = model.prompt("RETURN VALUE\n\nOn success, zero is returned.\n");
  CHECK(one[0].at("tokens") == ids.size());
  CHECK(one[0].at("embedding").get<std::vector<float>>() == embedder.embed(ids));

  const Answer lines = run_program("embed --lines --pooling last --layer 3 --text " + quoted(file));
  REQUIRE(lines.status == 0);
  const auto two = lines_of(lines.out);
  REQUIRE(two.size() == 2);
  CHECK(two[0].at("line") == 1);
  CHECK(two[1].at("line") == 3);
  CHECK(two[1].at("embedding").get<std::vector<float>>() ==
        embedder.embed(model.prompt("On success, zero is returned."), Pooling::kLast, 3));
}

TEST_CASE("embed: what cannot be read is refused by name") {
  const test::TempDir dir;
  test::write_text(dir / "empty", "");
  std::string long_text;
  for (int i = 0; i < 40000; ++i) long_text += "a b ";
  test::write_text(dir / "long", "short\n" + long_text + "\n");
  CHECK(contains(run_program("embed --text " + quoted(dir / "empty")).err, "empty: is empty"));
  const Answer answer = run_program("embed --lines --text " + quoted(dir / "long"));
  CHECK(answer.status == 1);
  CHECK(contains(answer.err, "long: line 2: "));
  CHECK(contains(answer.err, "do not fit into a context of"));
  CHECK(lines_of(answer.out).size() == 1);
  CHECK(run_program("embed").status == 2);
  CHECK(run_program("embed --text x --layer 99").status == 1);
  test::write_text(dir / "short", "a");
  CHECK(contains(run_program("embed --layer 99 --text " + quoted(dir / "short")).err, "layer 99, expected 0 to 5"));
}

TEST_CASE("embed: needs no head, and gives the same numbers without one") {
  const test::TempDir dir;
  test::write_text(dir / "text", "RETURN VALUE");
  const std::string tiny = quoted(MIXTRAL_TINY_DIR), text = " --text " + quoted(dir / "text");
  const std::string whole = quoted(dir / "whole"), headless = quoted(dir / "headless");
  REQUIRE(run_program("pack " + tiny + " " + whole + " --weights p8").status == 0);
  REQUIRE(run_program("pack " + tiny + " " + headless + " --weights p8 --head none").status == 0);
  const Answer want = run_program("embed --model " + whole + text),
               got = run_program("embed --model " + headless + text);
  REQUIRE(want.status == 0);
  CHECK(got.status == 0);
  CHECK(got.out == want.out);
}
