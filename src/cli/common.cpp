#include "common.hpp"

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>

#include "mixtral/core/error.hpp"
#include "mixtral/io/synthetic.hpp"
#include "mixtral/runtime/available_threads.hpp"
#include "mixtral/runtime/isa.hpp"

namespace mixtral::cli {
namespace {

namespace fs = std::filesystem;

// In the build tree as in an installation.
fs::path embedded_model() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return (program.parent_path() / "../share/mixtral/models/tiny").lexically_normal();
}

}  // namespace

void add_model_options(CLI::App& command, CommonOptions& options) {
  options.model = embedded_model();
  command.add_option("--model", options.model, "Directory or packed file (default: the tiny model of this program)")
      ->type_name("PATH");
  command.add_flag("--resident", options.resident, "Copy the weights into memory first: slower to open, faster to run");
  add_machine_options(command, options);
}

void add_machine_options(CLI::App& command, CommonOptions& options) {
  options.threads = available_threads();
  command.add_option("--threads", options.threads, "Threads (default: the CPUs this process may use)")
      ->check(CLI::Range(1, 1024));
  std::vector<std::string> isa_names;
  for (const Isa isa : all_isas()) isa_names.emplace_back(name_of(isa));
  command.add_option("--isa", options.isa, "Use no better instruction set than this one")
      ->check(CLI::IsMember(isa_names));
  command.add_flag("--bf16-products", options.bf16_products,
                   "Round activations to bf16 before products with bf16 weights: other bits; with AVX-512 BF16 or AMX "
                   "two at a time");
}

KernelTable table_of(const CommonOptions& options) {
  return make_table(options.isa.empty() ? best_isa() : isa_from_name(options.isa),
                    options.bf16_products ? Bf16Products::kRounded : Bf16Products::kFloat32);
}

void add_common_options(CLI::App& command, CommonOptions& options) {
  add_model_options(command, options);
  command.add_flag("--json", options.json, "Answer in JSON");
}

void add_kv_option(CLI::App& command, CommonOptions& options) {
  command.add_option("--kv", options.kv, "What keys and values are kept in")
      ->check(CLI::IsMember(kKvTypeNames))
      ->capture_default_str();
}

CLI::Option* add_ids_option(CLI::App& command, std::vector<TokenId>& ids, const std::string& description) {
  // The command-line library would read an empty argument as 0.
  const auto not_empty = [](const std::string& id) { return std::string(id.empty() ? "an id is empty" : ""); };
  return command.add_option("--ids", ids, description)->delimiter(',')->check(not_empty);
}

void add_sampling_options(CLI::App& command, SamplerOptions& options) {
  options.temperature = 0.7f;
  options.top_p = 0.95f;
  auto* greedy = command.add_flag_callback(
      "--greedy", [&options] { options.temperature = 0; }, "Always the likeliest token (temperature 0)");
  command.add_option("--temperature", options.temperature, "Below 1: bolder choices become rarer; 0: greedy")
      ->capture_default_str()
      ->excludes(greedy);
  command.add_option("--top-k", options.top_k, "Keep the k likeliest tokens; 0: all")->capture_default_str();
  command.add_option("--top-p", options.top_p, "Keep the fewest tokens that add up to this probability")
      ->capture_default_str();
  command.add_option("--min-p", options.min_p, "Drop what is less likely than this share of the likeliest")
      ->capture_default_str();
  command.add_option("--repetition-penalty", options.repetition_penalty, "Above 1: seen tokens become rarer")
      ->capture_default_str();
  command.add_option("--seed", options.seed, "The same seed draws the same text")->capture_default_str();
}

CLI::Option* add_synthetic_option(CLI::App& command, std::string& name) {
  return command.add_option("--synthetic", name, "Random weights in this model's shape")
      ->check(CLI::IsMember({kSyntheticModel}));
}

const std::vector<std::string> kWeightsFormats = {"p4", "p8", "bf16"};

DType weights_format(const std::string& name) {
  return name == "p4" ? DType::kP4 : name == "p8" ? DType::kP8 : DType::kBF16;
}

const std::vector<std::string> kKvTypeNames = {"f32", "bf16", "i8"};

DType kv_type(const std::string& name) {
  return name == "f32" ? DType::kF32 : name == "i8" ? DType::kI8 : DType::kBF16;
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string read_stdin() {
  std::string bytes;
  char block[1 << 16];
  while (const std::size_t n = std::fread(block, 1, sizeof block, stdin)) bytes.append(block, n);
  require(std::ferror(stdin) == 0, ErrorCode::kIo, "stdin: cannot read after ", bytes.size(), " bytes");
  return bytes;
}

void write_stdout(std::string_view bytes) {
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), stdout) == bytes.size() && std::fflush(stdout) == 0;
  require(written, ErrorCode::kIo, "stdout: cannot write ", bytes.size(), " bytes");
}

}  // namespace mixtral::cli
