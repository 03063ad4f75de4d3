// The program `mixtral`: a thin user of the library. Exit codes: 0 done, 1 failed, 2 bad usage.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

#include "commands.hpp"

int main(int argc, char** argv) {
  CLI::App program("Runs Mixtral-type mixture-of-experts language models on CPUs.", "mixtral");
  program.require_subcommand(1);
  try {
    mixtral::cli::add_generate(program);
    mixtral::cli::add_tokenize(program);
    mixtral::cli::add_eval(program);
    mixtral::cli::add_inspect(program);
    program.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    return program.exit(error) == 0 ? 0 : 2;  // --help comes here, too
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mixtral: %s\n", error.what());
    return 1;
  }
}
