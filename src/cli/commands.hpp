// The subcommands of the program. Each lives in one file of its name, adds itself to the program, and runs as the
// callback of its CLI::App. A failure is an exception: main() turns it into the exit code.
#pragma once

namespace CLI {
class App;
}

namespace mixtral::cli {

void add_generate(CLI::App& program);
void add_chat(CLI::App& program);
void add_tokenize(CLI::App& program);
void add_eval(CLI::App& program);
void add_compare(CLI::App& program);
void add_inspect(CLI::App& program);
void add_pack(CLI::App& program);
void add_embed(CLI::App& program);
void add_bench(CLI::App& program);

}  // namespace mixtral::cli
