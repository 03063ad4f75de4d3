#include "common.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <memory>
#include <system_error>

#include "cli/arguments.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/io/synthetic.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/available_threads.hpp"

namespace mixtral::cli {
namespace {

namespace fs = std::filesystem;

// In the build tree as in an installation.
fs::path embedded_model() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return (program.parent_path() / "../share/mixtral/models/tiny").lexically_normal();
}

[[noreturn]] void fail_input(const std::string& name, const std::string& action, int error) {
  fail(error == ENOENT || error == ENOTDIR ? ErrorCode::kNotFound : ErrorCode::kIo, name, ": ", action, ": ",
       std::generic_category().message(error));
}

// What is left to read.
std::string read_all(int descriptor, const std::string& name) {
  constexpr std::size_t kMostBytes = std::size_t{1} << 30;
  std::string bytes;
  char block[1 << 16];
  for (;;) {
    const ssize_t n = ::read(descriptor, block, sizeof block);
    if (n == 0) return bytes;
    if (n < 0 && errno != EINTR) fail_input(name, str("cannot read after ", bytes.size(), " bytes"), errno);
    if (n > 0) bytes.append(block, static_cast<std::size_t>(n));
    require(bytes.size() <= kMostBytes, ErrorCode::kBadFormat, name, ": more than ", kMostBytes, " bytes");
  }
}

constexpr std::string_view kShownAsTheyAre = "\n\t";

}  // namespace

void add_model_options(CLI::App& command, CommonOptions& options) {
  options.model = embedded_model();
  const CLI::Option* model =
      command
          .add_option("-m,--model", options.model,
                      "Directory, packed file or GGUF file (default: the tiny model of this program)")
          ->type_name("PATH");
  command.parse_complete_callback([&command, model, &options] {
    const CLI::Option* synthetic = command.get_option_no_throw("--synthetic");
    const bool needed = model->count() == 0 && (synthetic == nullptr || synthetic->count() == 0);
    std::error_code ignored;
    require(
        !needed || fs::exists(options.model, ignored), ErrorCode::kNotFound, options.model.string(),
        ": no such directory: the tiny model stands where the program was built or installed, and the program seems "
        "to have been moved; give --model PATH");
  });
  command.add_flag("--resident", options.resident, "Copy the weights into memory first: slower to open, faster to run");
  command
      .add_option("--import", options.import,
                  "What quantised weights of a GGUF file become in memory: packed, Q8_0, Q4_0, Q4_1 and Q4_K as they "
                  "are, others P4 or P8, whichever is nearer in bytes; or float, exactly, for checks and small models")
      ->check(CLI::IsMember({"packed", "float"}))
      ->capture_default_str();
  add_machine_options(command, options);
}

QuantizedImport import_of(const CommonOptions& options) {
  return options.import == "float" ? QuantizedImport::kFloat32 : QuantizedImport::kPacked;
}

void add_machine_options(CLI::App& command, CommonOptions& options) {
  options.threads = available_threads();
  add_number(command, "-t,--threads", options.threads, {1, 1024}, "Threads (default: the CPUs this process may use)");
  std::vector<std::string> isa_names;
  for (const Isa isa : all_isas()) isa_names.emplace_back(name_of(isa));
  command.add_option("--isa", options.isa, "Use no better instruction set than this one")
      ->check(CLI::IsMember(isa_names));
  command.add_flag("--bf16-products", options.bf16_products,
                   "Round activations to bf16 before products with bf16 weights: other bits; with AVX-512 BF16 or AMX "
                   "two at a time");
}

Isa isa_of(const CommonOptions& options) { return options.isa.empty() ? best_isa() : isa_from_name(options.isa); }

Bf16Products bf16_products_of(const CommonOptions& options) {
  return options.bf16_products ? Bf16Products::kRounded : Bf16Products::kFloat32;
}

KernelTable table_of(const CommonOptions& options) { return make_table(isa_of(options), bf16_products_of(options)); }

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
  return add_numbers(command, "--ids", ids, {}, description);
}

void add_sampling_options(CLI::App& command, SamplerOptions& options) {
  options.temperature = 0.7f;
  options.top_p = 0.95f;
  auto* greedy = command.add_flag_callback(
      "--greedy", [&options] { options.temperature = 0; }, "Always the likeliest token (temperature 0)");
  const auto add = [&](const char* name, auto& value, Range<std::decay_t<decltype(value)>> range, const char* text) {
    return add_number(command, name, value, range, text)->capture_default_str();
  };
  add("--temperature", options.temperature, {}, "Below 1: bolder choices become rarer; 0: greedy")->excludes(greedy);
  add("--top-k", options.top_k, {}, "Keep the k likeliest tokens; 0: all");
  add("--top-p", options.top_p, {0, 1, true}, "Keep the fewest tokens that add up to this probability");
  add("--min-p", options.min_p, {0, 1}, "Drop what is less likely than this share of the likeliest");
  add("--repetition-penalty", options.repetition_penalty, {.above = true}, "Above 1: seen tokens become rarer");
  add("--seed", options.seed, {}, "The same seed draws the same text");
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

void require_no_input(const std::filesystem::path& out, const std::filesystem::path& in) {
  std::error_code none;  // what is not there, or cannot be looked at, is not overwritten either
  const auto check = [&](const std::filesystem::path& file) {
    require(!std::filesystem::equivalent(file, out, none), out.string(), ": is the input", file == in ? "" : "'s ",
            file == in ? "" : file.filename().string());
  };
  check(in);
  for (std::filesystem::directory_iterator file(in, none), end; !none && file != end; file.increment(none)) {
    check(file->path());
    none.clear();
  }
}

std::string read_stdin() { return read_all(STDIN_FILENO, "stdin"); }

std::string read_input(const std::filesystem::path& path) {
  if (path == "-") return read_stdin();
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail_input(path.empty() ? "an empty path" : path.string(), "cannot open", errno);
  const std::unique_ptr<const int, void (*)(const int*)> closer(&descriptor, [](const int* d) { ::close(*d); });
  return read_all(descriptor, path.string());
}

std::string input_name(const std::filesystem::path& path) { return path == "-" ? "stdin" : path.string(); }

std::vector<TextPiece> read_pieces(const std::filesystem::path& path, const Tokenizer& tokenizer, Index context,
                                   Index max_tokens) {
  std::vector<TextPiece> pieces = text_pieces(read_input(path), tokenizer, context, max_tokens);
  require(!pieces.empty(), input_name(path), ": is empty");
  return pieces;
}

void write_stdout(std::string_view bytes) {
  const std::string shown = ::isatty(STDOUT_FILENO) == 1 ? printable(bytes, kShownAsTheyAre) : std::string(bytes);
  const bool written = std::fwrite(shown.data(), 1, shown.size(), stdout) == shown.size() && std::fflush(stdout) == 0;
  require(written, ErrorCode::kIo, "stdout: cannot write ", bytes.size(),
          " bytes: ", std::generic_category().message(errno));
}

void write_message(std::string_view text) {
  const std::string shown = printable(text, kShownAsTheyAre) + "\n";
  std::fwrite(shown.data(), 1, shown.size(), stderr);
}

}  // namespace mixtral::cli
