// What all subcommands share: exit codes, messages, common options.
#include <doctest/doctest.h>

#include "mixtral/ops/isa.hpp"
#include "support/consolidated_files.hpp"
#include "support/golden.hpp"
#include "support/program.hpp"

using namespace mixtral;
using test::Answer;
using test::contains;
using test::quoted;
using test::run_program;

namespace {

const std::string kSubcommands[] = {"generate", "chat",    "tokenize", "embed", "eval",
                                    "compare",  "inspect", "bench",    "pack"};
const std::string kModelA = " --model " + quoted(test::golden_dir() / "models/A");

}  // namespace

TEST_CASE("Every subcommand's --help shows an example") {
  const Answer overview = run_program("--help");
  CHECK(overview.status == 0);
  for (const std::string& name : kSubcommands) {
    CAPTURE(name);
    CHECK(contains(overview.out, name));
    const Answer help = run_program(name + " --help");
    CHECK(help.status == 0);
    CHECK(contains(help.out, "Example"));
    CHECK(contains(help.out, "mixtral " + name));
    CHECK(help.err.empty());
  }
}

TEST_CASE("Bad usage is exit code 2 and says what is wrong on stderr") {
  const struct {
    std::string arguments, message;
  } cases[] = {
      {"", "a command is missing"},
      {"fly", "\"fly\" is no command"},
      {"generate --unknown", "--unknown"},
      {"generate --ids 1,x", "--ids"},
      {"generate --ids 99999999999", "--ids"},
      {"generate --ids ''", "--ids"},
      {"eval --ids ''", "--ids"},
      {"generate --ids 1 --prompt a", "--prompt"},
      {"generate --ids 1 --n -1", "--n"},
      {"generate --greedy --temperature 1", "--greedy"},
      {"generate --threads 0", "--threads"},
      {"generate --seed x", "--seed"},
      {"chat --greedy --temperature 1", "--greedy"},
      {"chat --template v2", "--template"},
      {"chat --n 0", "--n"},
      {"eval", "--ids"},
      {"eval --ids 1 --text file", "--ids"},
      {"inspect stray", "stray"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.arguments);
    const Answer answer = run_program(c.arguments);
    CHECK(answer.status == 2);
    CHECK_MESSAGE(contains(answer.err, c.message), answer.err);
    CHECK(answer.out.empty());
  }
}

TEST_CASE("No command, and one that is none, are answered with the commands") {
  for (const char* arguments : {"", "fly", "fly --model x", "--fly"}) {
    const Answer answer = run_program(arguments);
    CHECK(answer.status == 2);
    CHECK(answer.out.empty());
    for (const std::string& name : kSubcommands) CHECK(contains(answer.err, "\n  " + name + " "));
  }
}

TEST_CASE("--version names the program, its version and the instruction set") {
  const Answer answer = run_program("--version");
  CHECK(answer.status == 0);
  CHECK(answer.out.starts_with("mixtral 1."));
  CHECK(contains(answer.out, std::string(name_of(best_isa()))));
  CHECK(answer.out.ends_with(")\n"));
}

TEST_CASE("What a file's names or an argument want of the terminal is written out in answers and messages") {
  const test::TempDir dir;
  const std::string names[] = {"\x1B[2J", "\x1B]0;title\x07"};
  for (const std::string& name : names) {
    for (const std::string& command : {"inspect --model " + quoted(dir / name), "pack --verify " + quoted(dir / name),
                                       "generate --n " + quoted(name), quoted(name)}) {
      const Answer answer = run_program(command);
      CHECK(answer.status != 0);
      CHECK(contains(answer.err, "\\x1b"));
      CHECK_FALSE(contains(answer.err, "\x1B"));
    }
  }
  // A tensor that is known and not used may have such a name.
  test::Files files = test::read_dir(test::golden_dir() / "models/A");
  std::string& weights = files.at("model.safetensors");
  const std::vector<float> values(2);
  const SafetensorsFile file(test::golden_dir() / "models/A/model.safetensors");
  std::vector<SafetensorsEntry> entries(file.entries().begin(), file.entries().end());
  entries.push_back({"\x1B[31m.rotary_emb.inv_freq", DType::kF32, {2}, std::as_bytes(std::span(values))});
  write_safetensors(dir / "weights", entries);
  weights = read_file(dir / "weights", Index{1} << 30);
  test::write_dir(dir.path(), files);
  const Answer report = run_program("inspect --model " + quoted(dir.path()));
  CHECK(report.status == 0);
  CHECK(contains(report.out, "\\x1b[31m.rotary_emb.inv_freq"));
  CHECK_FALSE(contains(report.out, "\x1B"));
}

TEST_CASE("Standard input that cannot be read is exit code 1 and the reason") {
  for (const std::string command : {"chat", "tokenize", "generate --prompt-file -", "eval --text -"}) {
    CAPTURE(command);
    const Answer directory = run_program(command + " </");
    CHECK(directory.status == 1);
    CHECK(contains(directory.err, "stdin: cannot read"));
    CHECK(contains(directory.err, "Is a directory"));
    CHECK(run_program(command + " <&-").status == 1);
  }
}

TEST_CASE("An unknown instruction set is bad usage, answered with the names") {
  for (const std::string& name : kSubcommands) {
    const Answer answer = run_program(name + kModelA + " --isa foo");
    CHECK(answer.status == 2);
    for (const Isa isa : all_isas()) CHECK(contains(answer.err, std::string(name_of(isa))));
  }
}

TEST_CASE("A missing model is exit code 1 and its path on stderr") {
  for (const std::string command : {"generate --ids 1", "chat", "tokenize", "eval --ids 1", "inspect", "bench"}) {
    CAPTURE(command);
    const Answer answer = run_program(command + " --model /no/such/model");
    CHECK(answer.status == 1);
    CHECK(contains(answer.err, "mixtral: /no/such/model"));
    CHECK(answer.out.empty());
  }
}

TEST_CASE("A consolidated directory is inspected, and completed as the Hugging Face directory of the same model") {
  const test::TempDir dir;
  test::write_dir(dir.path(), test::consolidated(test::read_dir(test::golden_dir() / "models/A")));
  const std::string model = " --model " + quoted(dir.path());
  const Answer report = run_program("inspect" + model);
  CHECK(report.status == 0);
  CHECK(contains(report.out, "layers.*.feed_forward.experts.*.w1.weight"));
  const std::string complete = "generate --greedy --n 16 --ids 1,5,9 --print-ids";
  const Answer want = run_program(complete + kModelA), got = run_program(complete + model);
  CHECK(got.status == 0);
  CHECK_FALSE(got.out.empty());
  CHECK(got.out == want.out);
}

TEST_CASE("Output that cannot be written is exit code 1") {
  const std::string commands[] = {"--help",
                                  "generate --help",
                                  "generate --n 2 --ids 1" + kModelA,
                                  "generate --n 2 --json --ids 1" + kModelA,
                                  "generate --n 2",
                                  "eval --ids 1,2" + kModelA,
                                  "inspect" + kModelA};
  for (const std::string& command : commands) {
    CAPTURE(command);
    CHECK(run_program(command + " >&-").status == 1);
    if (!std::filesystem::exists("/dev/full")) continue;
    const Answer full = run_program(command + " >/dev/full");
    CHECK(full.status == 1);
    CHECK(contains(full.err, "stdout"));
  }
}

TEST_CASE("Every instruction set and number of threads prints the same") {
  const std::string commands[] = {"generate --greedy --n 16 --prompt 'RETURN VALUE' --print-ids --routes",
                                  "generate --seed 7 --n 16 --prompt 'RETURN VALUE'"};
  for (const std::string& command : commands) {
    CAPTURE(command);
    const Answer want = run_program(command + " --isa reference --threads 1");
    CHECK(want.status == 0);
    CHECK_FALSE(want.out.empty());
    for (const Isa isa : all_isas()) {
      for (const char* threads : {"1", "2"}) {
        CAPTURE(name_of(isa));
        CAPTURE(threads);
        const Answer got = run_program(str(command, " --isa ", name_of(isa), " --threads ", threads));
        CHECK(got.out == want.out);
        CHECK(got.err.empty());
      }
    }
  }
}
