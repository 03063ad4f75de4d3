// `mixtral chat` as a person uses it.
#include <doctest/doctest.h>

#include "mixtral/text/vocabulary_files.hpp"
#include "support/golden.hpp"
#include "support/program.hpp"
#include "support/pty.hpp"
#include "support/sentencepiece_model.hpp"

using namespace mixtral;
using test::contains;
using test::ProgramInTerminal;

namespace {

constexpr const char *kPrompt = "\n> ", *kCtrlC = "\x03", *kCtrlD = "\x04", *kBackspace = "\x7F", *kUp = "\x1B[A";

// The embedded model with a long context, and taught an EOS that it never draws: its answers have no end.
void make_endless_model(const test::TempDir& dir) {
  auto config = test::read_json(test::tiny_dir() / "config.json");
  config["max_position_embeddings"] = 32768;
  config["eos_token_id"] = config["bos_token_id"];
  test::write_text(dir / "config.json", config.dump());
  auto tokenizer = test::read_json(test::tiny_dir() / "tokenizer_config.json");
  tokenizer["eos_token"] = tokenizer["bos_token"];
  test::write_text(dir / "tokenizer_config.json", tokenizer.dump());
  for (const char* name : {"model.safetensors", "tokenizer.model"}) {
    std::filesystem::create_symlink(test::tiny_dir() / name, dir / name);
  }
}

// Says something and waits until the answer has begun, past the bar that a prompt has on a slow machine.
void ask(ProgramInTerminal& program) {
  program.type("hello\r");
  program.read_until("hello\r\n");
  if (contains(program.read(64), "prompt [")) {
    program.read_until("\x1B[K");
    program.read(16);
  }
}

// The number that ends before `unit`.
int number_before(const std::string& text, const std::string& unit) {
  const std::size_t end = text.find(unit);
  REQUIRE(end != text.npos);
  return std::stoi(text.substr(text.find_last_not_of("0123456789", end - 1) + 1));
}

}  // namespace

TEST_CASE("Ctrl-C stops an answer, not the program, and what was drawn stays") {
  const test::TempDir dir;
  make_endless_model(dir);
  ProgramInTerminal program({"chat", "--model", dir.path().string(), "--greedy", "--n", "30000"});
  int before = 0;
  for (int turn = 0; turn < 2; ++turn) {
    program.await_prompt(kPrompt);
    ask(program);
    program.type(kCtrlC);
    const std::string stopped = program.read_until(" tokens)");
    CHECK(contains(stopped, "(stopped after "));
    program.await_prompt(kPrompt);
    program.type("/stats\r");
    const std::string stats = program.read_until("tokens/s");
    CHECK(number_before(stats, " of 32768 tokens") < 20000);
    const int kept = number_before(stats, " kept");
    CHECK(kept >= before);  // all that the first turn has computed
    before = number_before(stopped, " tokens)");
  }
  program.await_prompt(kPrompt);
  program.type("/exit\r");
  CHECK(program.exit_code() == 0);
}

TEST_CASE("Ctrl-C while the prompt is read forgets the message and goes on") {
  const test::TempDir dir;
  make_endless_model(dir);
  std::string system;
  for (int i = 0; i < 1600; ++i) system += "The file is read from the current directory. ";
  ProgramInTerminal program({"chat", "--model", dir.path().string(), "--n", "1", "--system", system});
  program.await_prompt(kPrompt);
  program.type("hello\r");
  program.read_until("prompt [");  // the bar that a long prompt has
  program.type(kCtrlC);
  program.read_until("(stopped before the answer began");
  program.await_prompt(kPrompt);
  program.type("/stats\r");
  program.read_until("no answer yet");
  program.await_prompt(kPrompt);
  program.type(kCtrlD);
  CHECK(program.exit_code() == 0);
}

TEST_CASE("Ctrl-C at the prompt clears the line, also one that goes on") {
  ProgramInTerminal program({"chat"});
  program.await_prompt(kPrompt);
  program.type("garbage");
  program.type(kCtrlC);
  program.read_until("^C");
  program.await_prompt(kPrompt);
  program.type("more garbage\\\r");
  program.await_prompt("\n. ");
  program.type(kCtrlC);
  program.read_until("^C");
  program.await_prompt(kPrompt);
  program.type("garbage again");
  program.read_until("garbage again");
  program.interrupt();  // a signal that is no key
  program.read_until("^C");
  program.await_prompt(kPrompt);
  program.type("/stats\r");
  program.read_until("no answer yet");
  program.await_prompt(kPrompt);
  program.type("/exit\r");
  CHECK(program.exit_code() == 0);
}

TEST_CASE("Lines are edited, kept and continued, in UTF-8 whatever the locale") {
  ProgramInTerminal program({"chat"});  // the message about a marker tells what was read, byte by byte
  program.await_prompt(kPrompt);
  program.type("\xC3\xA9[INST]\r");
  program.read_until("[INST] at byte 2");
  program.await_prompt(kPrompt);
  program.type(std::string("\xC3\xA9") + kBackspace + "[INST]\r");
  program.read_until("[INST] at byte 0");
  program.await_prompt(kPrompt);
  program.type("[IN\\\r");
  program.await_prompt("\n. ");
  program.type("ST] [INST]\r");
  program.read_until("[INST] at byte 8");
  program.await_prompt(kPrompt);
  program.type(std::string(kUp) + "\r");
  program.read_until("[INST] at byte 4");
  program.await_prompt(kPrompt);
  program.type(kCtrlD);
  CHECK(program.exit_code() == 0);
}

TEST_CASE("A terminal does not obey an answer; a pipe gets its bytes") {
  const test::TempDir dir;
  for (const char* name : {"config.json", "model.safetensors"}) {
    std::filesystem::create_symlink(test::tiny_dir() / name, dir / name);
  }
  Vocabulary v = load_vocabulary(test::tiny_dir());
  for (std::size_t i = 0; i < v.pieces.size(); ++i) {
    if (v.types[i] == PieceType::kNormal && v.pieces[i].size() > 1) v.pieces[i] = str("\x1B[3", i, "m\xC2\x9B");
  }
  test::write_text(dir / "tokenizer.model", test::sentencepiece_model_bytes(v));
  const std::vector<std::string> arguments = {
      "generate", "--model", dir.path().string(), "--ids", "1,300,400", "--greedy", "--ignore-eos", "--n", "8"};
  ProgramInTerminal program(arguments);
  const std::string shown = program.read_until("\n");
  CHECK(contains(shown, "\\x1b[3"));
  CHECK(contains(shown, "m\\xc2\\x9b"));
  CHECK_FALSE(contains(shown, "\x1B"));
  CHECK(program.exit_code() == 0);
  const auto piped =
      test::run_program("generate --ids 1,300,400 --greedy --ignore-eos --n 8 --model " + test::quoted(dir.path()));
  CHECK(contains(piped.out, "\x1B[3"));
}

TEST_CASE("A terminal's answer ends in a line of its own, and an end at --n is told") {
  ProgramInTerminal program({"chat", "--n", "3"});
  program.read_until("/help lists the commands");
  program.await_prompt(kPrompt);
  program.type("hello\r");
  program.read_until("\n(ended after 3 tokens, see --n)");
  program.await_prompt(kPrompt);
  program.type("/exit\r");
  CHECK(program.exit_code() == 0);
}
