// The program `mixtral`: a thin user of the library. Exit codes: 0 done, 1 failed, 2 bad usage.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <exception>
#include <sstream>

#include "cli/arguments.hpp"
#include "cli/commands.hpp"
#include "cli/common.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/ops/isa.hpp"

namespace {

using mixtral::str;

std::string version_text() {
#if defined(__clang__)
  constexpr const char* kCompiler = "clang " __clang_version__;
#else
  constexpr const char* kCompiler = "gcc " __VERSION__;
#endif
  return str("mixtral " MIXTRAL_PROGRAM_VERSION " (", name_of(mixtral::best_isa()), ", compiled by ", kCompiler, ")");
}

// Without a command, or with one that is none.
std::string commands_text(const CLI::App& program) {
  const std::vector<std::string> strange = program.remaining();
  std::string text = strange.empty() ? "a command is missing" : str('"', strange.front(), "\" is no command");
  text += ". There are\n";
  for (const CLI::App* command : program.get_subcommands({})) {
    text += str("  ", command->get_name(), std::string(10 - command->get_name().size(), ' '),
                command->get_description(), "\n");
  }
  return text + "mixtral COMMAND --help tells more.";
}

// The library's own text has them in the order in which it takes them: backwards.
std::string strange_arguments_text(const CLI::App& program) {
  std::string text = "unexpected:";
  for (const std::string& argument : program.remaining(true)) text += str(" ", argument);
  return text;
}

int run(int argc, char** argv) {
  CLI::App program("Runs Mixtral-type mixture-of-experts language models on CPUs.", "mixtral");
  program.require_subcommand(1);
  program.set_version_flag("--version", version_text, "Print the version, this CPU's instruction set, the compiler");
  mixtral::cli::add_generate(program);
  mixtral::cli::add_chat(program);
  mixtral::cli::add_tokenize(program);
  mixtral::cli::add_embed(program);
  mixtral::cli::add_eval(program);
  mixtral::cli::add_compare(program);
  mixtral::cli::add_inspect(program);
  mixtral::cli::add_pack(program);
  mixtral::cli::add_bench(program);
  try {
    std::vector<std::string> arguments = mixtral::cli::arguments_of(program, argc, argv);
    std::reverse(arguments.begin(), arguments.end());  // as the library takes them
    program.parse(arguments);
    return 0;
  } catch (const CLI::Success& wanted) {  // --help, --version
    std::ostringstream text;
    program.exit(wanted, text);
    mixtral::cli::write_stdout(text.str());
    return 0;
  } catch (const CLI::ParseError& error) {
    const bool no_command = program.get_subcommands().empty();
    const bool strange = dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr;
    mixtral::cli::write_message(
        str("mixtral: ", no_command
                             ? commands_text(program)
                             : str(strange ? strange_arguments_text(program) : error.what(), "\n--help tells more.")));
    return 2;
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    mixtral::cli::write_message(str("mixtral: ", error.what()));
    return 1;
  }
}
