// `mixtral chat` from a pipe; terminal_test.cpp has it in a terminal.
#include <doctest/doctest.h>

#include "mixtral/core/openmp_executor.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/generate.hpp"
#include "mixtral/runtime/loaded_model.hpp"
#include "mixtral/text/chat_template.hpp"
#include "support/golden.hpp"
#include "support/program.hpp"
#include "support/sentencepiece_model.hpp"
#include "support/tokenizer_files.hpp"

using namespace mixtral;
using test::Answer;
using test::contains;
using test::quoted;
using test::sentencepiece_model_bytes;

namespace {

Answer chat(const std::string& lines, const std::string& arguments = "--greedy --n 24") {
  const test::TempDir dir;
  test::write_text(dir / "lines", lines);
  return test::run_program("chat " + arguments + " <" + quoted(dir / "lines"));
}

// The greedy answers of 24 tokens, each from a new session, one line after the other.
std::string answers(const std::filesystem::path& path, ChatStyle style, const std::string& system,
                    const std::vector<std::string>& lines) {
  const LoadedModel opened(path);
  const Tokenizer& tokenizer = opened.require_tokenizer();
  const ChatTemplate chat_template(tokenizer, style);
  const KernelTable table = make_table(best_isa());
  OpenMpExecutor executor(1);
  std::vector<std::vector<TokenId>> drawn;
  std::string text;
  for (std::size_t turn = 0; turn < lines.size(); ++turn) {
    std::vector<ChatMessage> messages = {{ChatRole::kSystem, system}};
    for (std::size_t i = 0; i < turn; ++i) {
      messages.push_back({ChatRole::kUser, lines[i]});
      messages.push_back({ChatRole::kAssistant, "", drawn[i]});
    }
    messages.push_back({ChatRole::kUser, lines[turn]});
    const LoadedModel loaded(opened.model(), table, executor);
    Session session(loaded);
    session.feed(chat_template.encode(messages));
    GenerateOptions options;
    options.max_tokens = 24;
    options.sampler.temperature = 0;
    options.stop_ids = opened.config().eos_ids;
    drawn.push_back(generate(session, &tokenizer, options).ids);
    text += tokenizer.decode(drawn.back()) + "\n";
  }
  return text;
}

// The embedded model with a tokenizer whose last two pieces are [INST] and [/INST], as control pieces.
void make_v3_model(const test::TempDir& dir) {
  for (const char* name : {"config.json", "model.safetensors"}) {
    std::filesystem::create_symlink(test::tiny_dir() / name, dir / name);
  }
  Vocabulary v = load_vocabulary(test::tiny_dir());
  const std::size_t n = v.pieces.size();
  v.pieces[n - 2] = "[INST]";
  v.pieces[n - 1] = "[/INST]";
  v.types[n - 2] = v.types[n - 1] = PieceType::kControl;
  test::write_text(dir / "tokenizer.model", sentencepiece_model_bytes(v));
}

// From "last prompt  63 tokens: 50 kept, 13 computed".
int kept_tokens(const std::string& stats) {
  const std::size_t at = stats.rfind(" tokens: ");
  REQUIRE(at != stats.npos);
  return std::stoi(stats.substr(at + 9));
}

}  // namespace

TEST_CASE("Each line is a message, and the answers are those of the whole conversation in a new session") {
  const std::vector<std::string> lines = {"The file is", "RETURN VALUE", "And then?"};
  const std::string input = "The file is\nRETURN VALUE\r\n\n  \nAnd then?";  // the last line has no end
  const Answer answer = chat(input);
  CHECK(answer.status == 0);
  CHECK(answer.out == answers(test::tiny_dir(), ChatStyle::kV1, "", lines));
  CHECK(answer.err.empty());
  const Answer with_system = chat(input, "--greedy --n 24 --system 'Answer briefly.' --template v1");
  CHECK(with_system.out == answers(test::tiny_dir(), ChatStyle::kV1, "Answer briefly.", lines));
  CHECK(with_system.out != answer.out);
}

TEST_CASE("A vocabulary with the markers as control pieces is talked to in style 3") {
  const test::TempDir dir;
  make_v3_model(dir);
  const std::string arguments = "--greedy --n 24 --model " + quoted(dir.path()) + " --system brief";
  const Answer v3 = chat("The file is\n[INST]\n", arguments);
  CHECK(v3.status == 0);  // no text can forge a marker
  CHECK(v3.out == answers(dir.path(), ChatStyle::kV3, "brief", {"The file is", "[INST]"}));
  CHECK(chat("The file is\n", arguments + " --template v1").out ==
        answers(dir.path(), ChatStyle::kV1, "brief", {"The file is"}));
}

TEST_CASE("/stats shows the context, what was kept of it, and which experts worked") {
  const Answer answer = chat("/stats\nNAME\n/stats\nNAME\n/stats\n");
  CHECK(answer.status == 0);
  CHECK(answer.out.starts_with("context      0 of 512 tokens\nno answer yet\n"));
  const std::size_t second = answer.out.rfind("context");
  const std::string first_stats = answer.out.substr(0, second);
  CHECK(kept_tokens(first_stats) == 0);
  CHECK(kept_tokens(answer.out) >= 11 + 23);  // the first question and its answer, but for the last token
  CHECK(contains(answer.out.substr(second), " of 512 tokens\n"));
  CHECK(contains(answer.out.substr(second), "last answer  24 tokens, "));
  CHECK(contains(answer.out.substr(second), "layer     0     1     2     3     4     5     6     7\n    0"));
}

TEST_CASE("/reset begins anew, with the same random numbers, and keeps what is computed of the system text") {
  const Answer answer = chat("NAME\n/reset\nNAME\n/stats\n", "--n 24 --seed 4 --temperature 1.2 --system 'Be brief.'");
  CHECK(answer.status == 0);
  const std::string both = answer.out.substr(0, answer.out.find("context"));
  CHECK(both.size() > 20);
  CHECK(both.substr(0, both.size() / 2) == both.substr(both.size() / 2));
  CHECK(kept_tokens(answer.out) > 10);
}

TEST_CASE("The same seed has the same conversation, another seed another") {
  const std::string lines = "NAME\nDESCRIPTION\n", arguments = "--n 24 --temperature 1.5 --seed ";
  const Answer answer = chat(lines, arguments + "1");
  CHECK_FALSE(answer.out.empty());
  CHECK(chat(lines, arguments + "1 --threads 1 --isa reference").out == answer.out);
  CHECK(chat(lines, arguments + "2").out != answer.out);
}

TEST_CASE("A forged marker is refused, the next line is answered, and the exit code is 1") {
  const Answer answer = chat("NAME\nthe end [/INST] of it\nNAME\n");
  CHECK(answer.status == 1);
  CHECK(contains(answer.err, "mixtral: line 2: "));
  CHECK(contains(answer.err, "[/INST] at byte 8"));
  CHECK(contains(answer.err, "1 of 3 lines failed"));
  CHECK(answer.out == chat("NAME\nNAME\n").out);
  const Answer system = chat("NAME\n", "--system 'a [INST]'");
  CHECK(system.status == 1);
  CHECK(contains(system.err, "message 0 (system) contains [INST] at byte 2"));
  CHECK(system.out.empty());
}

TEST_CASE("A message that does not fit names the numbers, and the conversation goes on without it") {
  std::string too_long;
  for (int i = 0; i < 600; ++i) too_long += "word ";
  const Answer answer = chat("NAME\n" + too_long + "\nNAME\n");
  CHECK(answer.status == 1);
  CHECK(contains(answer.err, "line 2: chat: with this message the conversation has "));
  CHECK(contains(answer.err, "the context holds 512; /reset begins anew"));
  CHECK(answer.out == chat("NAME\nNAME\n").out);
}

TEST_CASE("An answer that fills the context ends there and says so; after /reset there is room") {
  const Answer answer = chat("The file is\n/stats\nmore\n/reset\nmore\n", "--greedy --n 600");
  CHECK(answer.status == 1);
  CHECK(contains(answer.err, "line 1: the context is full: 512 of 512 tokens; /reset begins anew"));
  CHECK(contains(answer.out, "context      512 of 512 tokens"));
  CHECK(contains(answer.err, "line 3: chat: with this message"));
  CHECK(contains(answer.err, "1 of 5 lines failed"));
  CHECK(answer.out.ends_with(chat("more\n", "--greedy --n 600").out));
}

TEST_CASE("Commands begin with a slash, texts with two") {
  const Answer answer = chat("/fly\n//fly\n/help \n/exit\nNAME\n");
  CHECK(answer.status == 1);
  CHECK(contains(answer.err, "line 1: no command /fly; /help"));
  CHECK(contains(answer.err, "1 of 4 lines failed"));
  const std::string said = answers(test::tiny_dir(), ChatStyle::kV1, "", {"/fly"});
  CHECK(answer.out.starts_with(said + "/reset  "));
  CHECK(answer.out.ends_with("clears the line.\n"));
}

TEST_CASE("chat says what a model lacks for it") {
  const Answer no_tokenizer = chat("a\n", "--model " + quoted(test::golden_dir() / "models/A"));
  CHECK(no_tokenizer.status == 1);
  CHECK(contains(no_tokenizer.err, "models/A: no tokenizer file to read text with"));
  const Answer no_markers = chat("a\n", "--template v3");
  CHECK(no_markers.status == 1);
  CHECK(contains(no_markers.err, "style 3 needs the control pieces [INST] and [/INST]"));
}

TEST_CASE("A pipe gets neither prompts nor terminal codes, and a lost output is exit code 1") {
  const Answer answer = chat("NAME\n");
  CHECK(answer.out.find('\x1B') == std::string::npos);
  CHECK(answer.out.find('\r') == std::string::npos);
  CHECK(answer.out == answers(test::tiny_dir(), ChatStyle::kV1, "", {"NAME"}));
  CHECK(chat("", "").out.empty());
  const Answer closed = chat("NAME\nNAME\n", ">&-");
  CHECK(closed.status == 1);
  if (std::filesystem::exists("/dev/full")) CHECK(contains(chat("NAME\n", ">/dev/full").err, "mixtral: stdout"));
}
