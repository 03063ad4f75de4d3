#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "support/golden.hpp"
#include "support/program.hpp"

using namespace mixtral;
using nlohmann::json;
using test::Answer;
using test::contains;
using test::list_of;
using test::quoted;
using test::run_program;

namespace {

Answer generate_json(const std::string& arguments) { return run_program("generate --greedy --json " + arguments); }

}  // namespace

TEST_CASE("generate --print-ids ends with the golden greedy ids") {
  const auto manifest = test::read_json(test::golden_dir() / "manifest.json");
  for (const auto& entry : manifest.at("cases")) {
    if (entry.at("kind") != "model") continue;
    const SafetensorsFile want(test::golden_dir() / entry.at("file").get<std::string>());
    CAPTURE(want.name());
    const Answer answer = run_program("generate --greedy --ignore-eos --kv f32 --n 24 --print-ids --model " +
                                      quoted(test::golden_dir() / entry.at("model").get<std::string>()) + " --ids " +
                                      list_of(test::elements<std::int32_t>(want, "ids")));
    CHECK(answer.status == 0);
    CHECK(answer.err.empty());
    CHECK(json::parse(test::last_line(answer.out)) == json(test::elements<std::int32_t>(want, "greedy_ids")));
  }
}

TEST_CASE("generate continues a prompt with the embedded model as its reference does") {
  const auto reference = test::read_json(test::golden_dir() / "tiny/reference.json");
  for (const auto& [domain, entry] : reference.at("prompts").items()) {
    CAPTURE(domain);
    const auto prompt = entry.at("prompt").get<std::string>();
    const auto& greedy = entry.at("greedy");
    const Answer answer = generate_json(str("--ignore-eos --n ", greedy.size(), " --prompt=", quoted(prompt)));
    CHECK(answer.status == 0);
    const json got = json::parse(answer.out);
    CHECK(got.at("ids") == greedy);
    CHECK(prompt + got.at("text").get<std::string>() == entry.at("greedy_text"));
    CHECK(got.at("prompt_tokens") == entry.at("ids").size());
  }
}

TEST_CASE("generate needs a tokenizer for text and says where there is none") {
  const std::string model = " --model " + quoted(test::golden_dir() / "models/A");
  for (const std::string arguments : {"--prompt a", ""}) {
    const Answer answer = run_program("generate " + arguments + model);
    CHECK(answer.status == 1);
    CHECK(contains(answer.err, "models/A: no tokenizer file to read text with"));
    CHECK(contains(answer.err, "token ids"));
  }
  CHECK(run_program("generate --ids 1 --stop a" + model).status == 1);
  const Answer answer = run_program("generate --ids 1 --n 3 --greedy" + model);  // ids are all it can print
  CHECK(answer.status == 0);
  CHECK(json::parse(answer.out).size() == 3);
}

TEST_CASE("generate takes a model with more ids than its tokenizer has pieces, not one with fewer") {
  const auto tokenizer = test::golden_dir() / "tokenizer/tokenizer_1/tokenizer.model";  // 1024 pieces
  const auto combine = [&](const test::TempDir& dir, const std::filesystem::path& model) {
    for (const char* name : {"config.json", "model.safetensors"}) {
      std::filesystem::create_symlink(model / name, dir / name);
    }
    std::filesystem::create_symlink(tokenizer, dir / "tokenizer.model");
    return run_program("generate --greedy --n 8 --print-ids --ids 1,2000,4095 --model " + quoted(dir.path()));
  };
  const test::TempDir more, fewer;
  const Answer padded = combine(more, test::tiny_dir());
  CHECK(padded.status == 0);
  CHECK(json::parse(test::last_line(padded.out)).size() == 8);
  const Answer refused = combine(fewer, test::golden_dir() / "models/A");
  CHECK(refused.status == 1);
  CHECK(contains(refused.err, "the tokenizer has 1024 pieces, the model 512"));
}

TEST_CASE("generate refuses ids that the model does not have") {
  const Answer answer = run_program("generate --ids=512 --model " + quoted(test::golden_dir() / "models/A"));
  CHECK(answer.status == 1);
  CHECK(contains(answer.err, "512"));
}

TEST_CASE("generate --stop ends the text before the string") {
  const std::string prompt = "--ignore-eos --n 32 --prompt 'RETURN VALUE'";
  const json whole = json::parse(generate_json(prompt).out);
  CHECK(whole.at("stop_reason") == "max_tokens");
  const auto text = whole.at("text").get<std::string>();
  REQUIRE(contains(text, " is "));
  const json stopped = json::parse(generate_json(prompt + " --stop never-written --stop ' is '").out);
  CHECK(stopped.at("stop_reason") == "stop_string");
  CHECK(stopped.at("text") == text.substr(0, text.find(" is ")));
  CHECK(stopped.at("ids").size() < whole.at("ids").size());
  const Answer streamed = run_program("generate --greedy " + prompt + " --stop ' is '");
  CHECK(streamed.out == text.substr(0, text.find(" is ")) + "\n");
}

TEST_CASE("generate --stop takes any text as it is written, brackets and commas too") {
  const std::string prompt = "--ignore-eos --n 32 --prompt 'RETURN VALUE'";
  const auto text = json::parse(generate_json(prompt).out).at("text").get<std::string>();
  REQUIRE(contains(text, " is "));
  for (const std::string stop : {"[ is ]", "[]", "{}", "[never-written, is ]", "%%"}) {
    CAPTURE(stop);
    CHECK(json::parse(generate_json(prompt + " --stop " + quoted(stop)).out).at("text") == text);
    CHECK(json::parse(generate_json(prompt + " --stop=" + quoted(stop)).out).at("text") == text);
  }
}

TEST_CASE("generate --prompt-file reads a prompt of any length, all its bytes, from a file or a pipe") {
  const test::TempDir dir;
  const std::string file = quoted(dir / "prompt"), pipe = quoted(dir / "pipe");
  test::write_text(dir / "prompt", "RETURN VALUE\n");
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  const json want = json::parse(generate_json("--n 8 --prompt " + quoted("RETURN VALUE\n")).out).at("ids");
  CHECK(want != json::parse(generate_json("--n 8 --prompt 'RETURN VALUE'").out).at("ids"));
  for (const std::string& source :
       {file, "- <" + file, "/dev/stdin <" + file, pipe + " & cat " + file + " >" + pipe + "; wait"}) {
    CAPTURE(source);
    const Answer answer = generate_json("--n 8 --prompt-file " + source);
    CHECK(answer.status == 0);
    CHECK(json::parse(answer.out).at("ids") == want);
  }
  std::string text;  // no argument can be so long
  for (int i = 0; i < 30000; ++i) text += "word ";
  test::write_text(dir / "prompt", text);
  const Answer longer = generate_json("--n 0 --prompt-file " + file);
  CHECK(longer.status == 1);  // nor can this model's context
  CHECK(contains(longer.err, "do not fit into a context of 512"));
  CHECK(contains(generate_json("--prompt-file " + quoted(dir / "none")).err, "none: cannot open: No such file"));
  CHECK(contains(generate_json("--prompt-file ''").err, "cannot open"));
  CHECK(contains(generate_json("--prompt-file " + quoted(dir.path())).err, "Is a directory"));
  CHECK(run_program("generate --prompt a --prompt-file " + file).status == 2);
  CHECK(run_program("generate --ids 1 --prompt-file " + file).status == 2);
}

TEST_CASE("generate --json has ids, text, times and, on demand, routes") {
  const json plain = json::parse(generate_json("--n 4 --prompt a").out);
  std::set<std::string> keys;
  for (const auto& [key, value] : plain.items()) keys.insert(key);
  CHECK(keys ==
        std::set<std::string>{"ids", "stop_reason", "prompt_tokens", "prompt_seconds", "decode_seconds", "text"});
  const json routed = json::parse(generate_json("--n 4 --ignore-eos --ids 1,2,3 --routes").out);
  Index choices = 0;
  for (const json& layer : routed.at("routes")) {
    for (const json& count : layer) choices += count.get<Index>();
  }
  CHECK(choices == 5 * 6 * 2);  // layers, tokens that were computed (the last one is not), experts of each
}

TEST_CASE("generate --routes prints a row of shares per layer") {
  const Answer answer = run_program("generate --n 2 --greedy --ids 1,2,3 --routes");
  CHECK(answer.status == 0);
  const std::string table = answer.out.substr(answer.out.find("\nlayer") + 1);
  CHECK(std::count(table.begin(), table.end(), '\n') == 6);  // the head and five layers
}

TEST_CASE("generate stops where the context is full and says so") {
  const json answer = json::parse(generate_json("--ignore-eos --n 600 --prompt a --threads 2").out);
  CHECK(answer.at("stop_reason") == "context_full");
}

TEST_CASE("generate with the same seed draws the same text, with --n 0 none") {
  const std::string command = "generate --n 24 --prompt 'NAME' --temperature 1.5 --seed ";
  CHECK(run_program(command + "1").out == run_program(command + "1").out);
  CHECK(run_program(command + "1").out != run_program(command + "2").out);
  CHECK(run_program("generate --n 0 --prompt a --print-ids").out == "\n[]\n");
}
