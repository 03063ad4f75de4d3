// What all subcommands share: exit codes, messages, common options.
#include <doctest/doctest.h>

#include "mixtral/runtime/isa.hpp"
#include "support/consolidated_files.hpp"
#include "support/golden.hpp"
#include "support/program.hpp"

using namespace mixtral;
using test::Answer;
using test::contains;
using test::quoted;
using test::run_program;

namespace {

const std::string kSubcommands[] = {"generate", "chat", "tokenize", "eval", "compare", "inspect", "bench", "pack"};
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
      {"", "subcommand"},
      {"fly", "subcommand"},
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
