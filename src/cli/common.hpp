// What the subcommands share: options, input and output.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/core/dtype.hpp"
#include "mixtral/core/types.hpp"
#include "mixtral/io/checkpoint.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/sampler.hpp"
#include "mixtral/text/text_pieces.hpp"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace mixtral::cli {

struct CommonOptions {
  std::filesystem::path model;    // --model; default: the tiny model that comes with the program
  int threads = 1;                // --threads; default: the CPUs that this process may use
  std::string isa;                // --isa; empty: the best instruction set of this CPU
  bool bf16_products = false;     // --bf16-products
  bool resident = false;          // --resident
  std::string import = "packed";  // --import
  std::string kv = "bf16";        // --kv
  bool json = false;              // --json
};

// Adds --threads, --isa and --bf16-products. `options` must outlive the parsing.
void add_machine_options(CLI::App& command, CommonOptions& options);
// What --isa and --bf16-products ask for, and the kernels.
Isa isa_of(const CommonOptions& options);
QuantizedImport import_of(const CommonOptions& options);
Bf16Products bf16_products_of(const CommonOptions& options);
KernelTable table_of(const CommonOptions& options);
// These options, --model and --resident.
void add_model_options(CLI::App& command, CommonOptions& options);
// --kv, which add_model_options() does not add.
void add_kv_option(CLI::App& command, CommonOptions& options);
// These and --json.
void add_common_options(CLI::App& command, CommonOptions& options);

// Sets the program's defaults and adds --greedy, --temperature, --top-k, --top-p, --min-p, --repetition-penalty and
// --seed. `options` must outlive the parsing.
void add_sampling_options(CLI::App& command, SamplerOptions& options);

// Adds --ids, a list "1,2,3" of at least one id. `ids` must outlive the parsing.
CLI::Option* add_ids_option(CLI::App& command, std::vector<TokenId>& ids, const std::string& description);

// Adds --synthetic, the name of a shape. `name` must outlive the parsing.
CLI::Option* add_synthetic_option(CLI::App& command, std::string& name);

// "p4", "p8" or "bf16".
DType weights_format(const std::string& name);
extern const std::vector<std::string> kWeightsFormats;
// "f32", "bf16" or "i8".
DType kv_type(const std::string& name);
extern const std::vector<std::string> kKvTypeNames;

// Of a clock that never goes back.
double seconds();

// All bytes of standard input. Throws Error(kIo) with the system's reason.
std::string read_stdin();
// All bytes of a file, a pipe or a device; of standard input for "-". Throws Error(kNotFound | kIo) with the system's
// reason, and kBadFormat on more than 1 GiB.
std::string read_input(const std::filesystem::path& path);
// What `path` is called in messages.
std::string input_name(const std::filesystem::path& path);
// text_pieces() of such a file. Throws Error(kInvalidArgument) if it is empty.
std::vector<TextPiece> read_pieces(const std::filesystem::path& path, const Tokenizer& tokenizer, Index context,
                                   Index max_tokens = 0);

// Throws Error(kInvalidArgument) if `out`, to be written, is the model `in`, or one of the files of that directory, by
// whatever name.
void require_no_input(const std::filesystem::path& out, const std::filesystem::path& in);

// On a terminal printable() but for line ends and tabs, elsewhere the bytes as they are. `bytes` begins and ends
// between two characters. Throws Error(kIo), so that a full disk does not look like success.
void write_stdout(std::string_view bytes);
// To stderr, printable() but for line ends and tabs, whatever it is. The line end of the message is added.
void write_message(std::string_view text);

}  // namespace mixtral::cli
