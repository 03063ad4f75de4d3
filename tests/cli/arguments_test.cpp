// Arguments count as they are written, in every command.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "support/golden.hpp"
#include "support/program.hpp"

using namespace mixtral;
using nlohmann::json;
using test::Answer;
using test::contains;
using test::quoted;
using test::run_program;

namespace {

const std::string kIds = "generate --greedy --ignore-eos --json --threads 1 --ids ";

std::size_t count_ids(const std::string& arguments) {
  const Answer answer = run_program(kIds + arguments);
  CHECK_MESSAGE(answer.status == 0, answer.err);
  return json::parse(answer.out).at("ids").size();
}

Index prompt_tokens(const std::string& arguments) {
  const Answer answer = run_program(kIds + arguments);
  CHECK_MESSAGE(answer.status == 0, answer.err);
  return json::parse(answer.out).at("prompt_tokens").get<Index>();
}

}  // namespace

TEST_CASE("A number is decimal, whatever it begins with") {
  CHECK(count_ids("1 --n 010") == 10);
  CHECK(count_ids("01 --n 007") == 7);
  CHECK(run_program("generate --n 1 --seed 18446744073709551615").status == 0);
  CHECK(run_program("generate --n 1 --temperature 1e-1 --top-p .5 --min-p 0.05 --repetition-penalty 1.1").status == 0);
  CHECK(run_program("generate --n 1 --temperature 0.5 --top-p 1").status == 0);
}

TEST_CASE("What is no number of its range is bad usage, told with the option, the text and the range") {
  const std::string whole[] = {"",    " 1",  "1 ",  "+1", "0x10", "0b1", "1e2",
                               "1.0", "1_0", "1'0", "x",  "[1]",  "{}",  "99999999999999999999"};
  const struct {
    std::string option;
    std::vector<std::string> more;
    std::string range;
  } cases[] = {
      {"generate --n", {"-1", "9223372036854775808"}, "from 0 to 9223372036854775807"},
      {"generate --ids", {"-1", "2147483648", "1,,2", "1,2,", ",1", "1, 2", "1;2", "[1,2]"}, "from 0 to 2147483647"},
      {"eval --ids", {"-1", "1,,2", "1,2,"}, "from 0 to 2147483647"},
      {"generate --threads", {"0", "1025"}, "from 1 to 1024"},
      {"generate --seed", {"-1", "18446744073709551616"}, "from 0 to 18446744073709551615"},
      {"generate --top-k", {"-1"}, "from 0 to"},
      {"chat --n", {"0", "-1"}, "from 1 to"},
      {"compare --reference x --text y --max-tokens", {"0", "-1"}, "from 1 to"},
      {"pack --synthetic mixtral-8x7b --layers", {"0", "1025"}, "from 1 to 1024"},
      {"pack --calibrate x --max-tokens", {"0"}, "from 1 to"},
      {"bench -p", {"-1", "16777217"}, "from 0 to 16777216"},
      {"bench --decode", {"-1"}, "from 0 to 16777216"},
      {"bench --batch", {"0", "1,,2", "1,2,", "4097", "[1,2]"}, "from 1 to 4096"},
      {"bench --ragged", {"-1", "4097"}, "from 0 to 4096"},
      {"bench --depth", {"-1"}, "from 0 to 16777216"},
      {"bench --repeat", {"0", "4097"}, "from 1 to 4096"},
  };
  for (const auto& c : cases) {
    std::vector<std::string> texts(std::begin(whole), std::end(whole));
    texts.insert(texts.end(), c.more.begin(), c.more.end());
    const std::string option = c.option.ends_with("-p") ? "--prompt" : c.option.substr(c.option.rfind("--"));
    for (const std::string& text : texts) {
      CAPTURE(c.option);
      CAPTURE(text);
      const Answer answer = run_program(c.option + " " + quoted(text));
      CHECK(answer.status == 2);
      CHECK_MESSAGE(contains(answer.err, option + ": \""), answer.err);
      CHECK_MESSAGE(contains(answer.err, "is not a whole number " + c.range), answer.err);
      CHECK(answer.out.empty());
    }
  }
}

TEST_CASE("What is no fraction of its range is bad usage, told with the option, the text and the range") {
  const struct {
    std::string option;
    std::vector<std::string> texts;
    std::string range;
  } cases[] = {
      {"--temperature", {"-0.1", "1e39", "1e-60"}, "from 0 to 3.4028235e+38"},
      {"--top-p", {"0", "1.01", "-1"}, "above 0 and at most 1"},
      {"--min-p", {"-0.1", "1.01"}, "from 0 to 1"},
      {"--repetition-penalty", {"0", "-1"}, "above 0 and at most"},
  };
  for (const auto& c : cases) {
    std::vector<std::string> texts = {"", "nan", "inf", "-inf", "0x1", "1,5", "1f", " 1", "+1", "."};
    texts.insert(texts.end(), c.texts.begin(), c.texts.end());
    for (const std::string& text : texts) {
      CAPTURE(c.option);
      CAPTURE(text);
      const Answer answer = run_program("generate " + c.option + " " + quoted(text));
      CHECK(answer.status == 2);
      CHECK_MESSAGE(contains(answer.err, str(c.option, ": \"", text, "\" is not a number ", c.range)), answer.err);
    }
  }
}

TEST_CASE("Ids come as one list, as several, or one by one") {
  CHECK(prompt_tokens("1,2,3 --n 0") == 3);
  CHECK(prompt_tokens("1,2 --ids 3,4 --n 0") == 4);
  CHECK(prompt_tokens("1 2 3 --n 0") == 3);
}

TEST_CASE("An empty value behind = is empty, not the next argument") {
  const Answer want = run_program("generate --greedy --json --prompt '' --n 0");
  const Answer got = run_program("generate --greedy --json --prompt= --n 0");
  CHECK(got.status == 0);
  CHECK(json::parse(got.out).at("prompt_tokens") == json::parse(want.out).at("prompt_tokens"));
  CHECK(run_program("generate --n= 3").status == 2);
  CHECK(run_program("generate --json= --n 0").status == 2);
  const auto text = json::parse(run_program("generate --json --n 0 --prompt '--n='").out);  // a value itself
  CHECK(text.at("prompt_tokens").get<Index>() > 2);
}

TEST_CASE("Paths may have brackets, commas, and names of commands") {
  const test::TempDir dir;
  const std::string tiny = quoted(MIXTRAL_TINY_DIR), cd = "pack " + tiny + " ";
  for (const std::string name : {"[out]", "[a,b]", "chat", "{}"}) {
    CAPTURE(name);
    CHECK(run_program(cd + quoted(dir / name) + " --weights bf16").status == 0);
    CHECK(std::filesystem::exists(dir / name));
    const Answer again = run_program("pack " + quoted(dir / name) + " " + quoted(dir / "again") + " --weights bf16");
    CHECK_MESSAGE(again.status == 0, again.err);
  }
}
