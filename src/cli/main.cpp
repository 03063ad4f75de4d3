// The program `mixtral`: a thin user of the library. Exit codes: 0 done, 1 failed, 2 bad usage.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <iostream>
#include <sstream>

#include "cli/commands.hpp"
#include "cli/common.hpp"

namespace {

int run(int argc, char** argv) {
  CLI::App program("Runs Mixtral-type mixture-of-experts language models on CPUs.", "mixtral");
  program.require_subcommand(1);
  mixtral::cli::add_generate(program);
  mixtral::cli::add_chat(program);
  mixtral::cli::add_tokenize(program);
  mixtral::cli::add_eval(program);
  mixtral::cli::add_compare(program);
  mixtral::cli::add_inspect(program);
  mixtral::cli::add_pack(program);
  mixtral::cli::add_bench(program);
  try {
    program.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {  // --help comes here, too
    std::ostringstream help;
    const bool bad_usage = program.exit(error, help, std::cerr) != 0;
    mixtral::cli::write_stdout(help.str());
    return bad_usage ? 2 : 0;
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mixtral: %s\n", error.what());
    return 1;
  }
}
