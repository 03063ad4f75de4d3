// `mixtral pack`: a checkpoint, or random weights, as one packed file; and whether such a file is what was written.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/arguments.hpp"
#include "cli/commands.hpp"
#include "cli/deferred_signals.hpp"
#include "cli/loaded_model.hpp"
#include "cli/pack_gguf.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/core/thread_executor.hpp"
#include "mixtral/io/gguf_weights.hpp"
#include "mixtral/io/packed.hpp"
#include "mixtral/io/synthetic.hpp"
#include "mixtral/runtime/importance.hpp"
#include "mixtral/runtime/session.hpp"
#include "mixtral/text/vocabulary_files.hpp"
#include "report/numbers.hpp"
#include "report/weight_groups.hpp"

namespace mixtral::cli {
namespace {

struct Options {
  CommonOptions common;
  std::vector<std::string> paths;  // IN OUT, or OUT
  std::string synthetic, weights, attention, head;
  std::filesystem::path verify;
  std::vector<std::filesystem::path> calibrate;
  Index layers = 0, max_tokens = 0;
};

// What the texts say about which input channels matter.
Importance importance_of(const Options& o, const LoadedModel& in) {
  Importance out(in.config());
  std::vector<TextPiece> pieces;
  Index all = 0, done = 0;
  for (const std::filesystem::path& file : o.calibrate) {
    const Index context = std::min<Index>(in.config().max_positions, 2048);
    for (TextPiece& piece : read_pieces(file, in.require_tokenizer(), context, o.max_tokens)) {
      all += static_cast<Index>(piece.inputs.size());
      pieces.push_back(std::move(piece));
    }
  }
  ProgressBar bar("calibrate", all);
  for (const TextPiece& piece : pieces) {
    Session session(in);
    session.feed(piece.inputs);
    session.eval(&out, [&](Index first, TensorView<const float, 2> logits) { bar.show(done + first + logits.dim(0)); });
    done += static_cast<Index>(piece.inputs.size());
  }
  return out;
}

double giga(Index bytes) { return 1e-9 * static_cast<double>(bytes); }

// What opening a GGUF file makes of it.
constexpr std::string_view kImport = "import";
constexpr const char* kNoHead = "none";  // value of --head

PackFormats formats_of(const Options& o) {
  const auto format = [&](const std::string& own) { return weights_format(own.empty() ? o.weights : own); };
  return {.experts = format({}), .attention = format(o.attention), .head = format(o.head == kNoHead ? "" : o.head)};
}

// Weights whose format is chosen, as stored and as packed.
struct Sizes {
  Index weights = 0, bytes = 0;
};

Sizes sizes_of(const Checkpoint& packed) {
  Sizes out;
  for (const report::WeightGroup& group : report::weight_groups(packed.model)) {
    if (!may_be_packed(group.group)) continue;
    out.weights += group.parameters;
    out.bytes += group.bytes;
  }
  return out;
}

// A signal meanwhile ends it and leaves nothing.
void write_packed(const std::filesystem::path& out, const KernelTable& table, SignalledExecutor& executor,
                  ModelConfig config, Head head, WeightSource source, PackOptions options) {
  config.has_head = head == Head::kRequired;
  const DeferredSignals signals;
  Scratch scratch;
  ProgressBar bar("pack");
  options.progress = [&](Index done, Index all) {
    DeferredSignals::check();
    bar.show(done, all);
  };
  pack_model(out, {table, executor, scratch}, config, source, options);
}

// What was written, and how fast.
void tell(const std::filesystem::path& out, Head head, double time) {
  const Sizes sizes = sizes_of(load_packed(out, head));
  const double bits = 8 * static_cast<double>(sizes.bytes) / static_cast<double>(std::max<Index>(sizes.weights, 1));
  write_stdout(str(out.string(), ": ", report::fixed(giga(static_cast<Index>(std::filesystem::file_size(out))), 2),
                   " GB, ", report::fixed(bits, 2), " bits a weight, ", report::fixed(time, 1), " s, ",
                   report::fixed(giga(2 * sizes.weights) / time, 2), " GB/s of 16-bit weights\n"));
}

void pack(const Options& o) {
  const bool random = !o.synthetic.empty();
  const Head head = o.head == kNoHead ? Head::kNone : Head::kRequired;
  const std::filesystem::path out = o.paths.back();
  std::error_code ignored;
  require(o.weights != kImport || (!random && is_gguf(o.paths.front())),
          "--weights import: ", random ? "random weights" : o.paths.front(), ": expected a GGUF file");
  require(!std::filesystem::is_directory(out, ignored), out.string(), ": is a directory, expected a file to write");
  const KernelTable table = table_of(o.common);
  ThreadExecutor workers(o.common.threads);
  SignalledExecutor executor(workers);
  PackOptions options{.formats = formats_of(o), .importance = {}, .files = {}, .progress = {}};

  if (names_gguf(out)) {
    const std::filesystem::path in = random ? std::string() : o.paths.front();
    if (!random) require_no_input(out, in);
    return pack_gguf({in, out, o.weights, o.attention, o.head, o.synthetic, o.layers}, o.common);
  }
  double begin = seconds();
  if (random) {
    SyntheticWeights source(executor);
    write_packed(out, table, executor, synthetic_config(o.synthetic, o.layers), head, source, options);
  } else {
    const std::filesystem::path in = o.paths.front();
    require_no_input(out, in);
    if (!o.calibrate.empty()) {  // a tokenizer is only opened if there is something to read
      CommonOptions common = o.common;
      common.model = in;
      options.importance = [importance = importance_of(o, load_model(common))](const TensorSlot& slot) {
        return importance.of(slot);
      };
    }
    if (is_gguf(in)) {  // no tensor is there longer than it is packed
      const bool import = o.weights == kImport;
      GgufWeights source(in, executor, import ? QuantizedImport::kPacked : QuantizedImport::kFloat32);
      if (import) options.type_of = [&](const TensorSlot& slot) { return source.type_of(slot); };
      options.files = source.files();
      begin = seconds();
      write_packed(out, table, executor, source.config(), head, source, options);
      return tell(out, head, seconds() - begin);
    }
    const Checkpoint checkpoint = load_checkpoint(in, {.head = head});
    options.files = checkpoint.files.empty() ? read_tokenizer_files(in) : checkpoint.files;
    CheckpointWeights source(checkpoint);
    begin = seconds();
    write_packed(out, table, executor, checkpoint.model.config, head, source, options);
  }
  tell(out, head, seconds() - begin);
}

// The formats of a GGUF file are its own.
void require_formats_of(const Options& o) {
  const bool gguf = names_gguf(o.paths.back());
  for (const auto& [option, format] :
       {std::pair{"--weights", o.weights}, {"--attention", o.attention}, {"--head", o.head}}) {
    const bool of_gguf = std::find(kGgufFormats.begin(), kGgufFormats.end(), format) != kGgufFormats.end();
    if (format.empty() || of_gguf == gguf) continue;
    throw CLI::ValidationError(option, gguf ? format + " is no format of a GGUF file, which has f16, q8_0 or q4_0"
                                            : format + " is a format of GGUF files: OUT should end in .gguf");
  }
  if (o.weights == kImport && !(o.attention.empty() && (o.head.empty() || o.head == kNoHead) && o.calibrate.empty())) {
    throw CLI::ValidationError("--weights", "import leaves no choice to --attention, --head and --calibrate");
  }
  if (gguf && !o.calibrate.empty()) throw CLI::ValidationError("--calibrate", "is for P4 and P8, not for GGUF files");
}

void verify(const std::filesystem::path& path, int threads) {
  require(!is_gguf(path), ErrorCode::kUnsupported, path.string(), ": a GGUF file has no checksums to compare");
  ThreadExecutor executor(threads);
  ProgressBar bar("verify");
  Index bytes = 0;
  const double begin = seconds();
  const std::vector<std::string> bad = verify_packed(path, executor, [&](Index done, Index all) {
    bytes = all;
    bar.show(done, all);
  });
  const double time = seconds() - begin;
  bar.finish();
  std::string names;
  for (const std::string& name : bad) names += str(names.empty() ? "" : ", ", name);
  require(bad.empty(), ErrorCode::kBadFormat, path.string(), ": the checksum of ", names,
          bad.size() == 1 ? " is" : " are", " not that of the bytes");
  write_stdout(str(path.string(), ": all checksums are right, ", report::fixed(giga(bytes), 2), " GB at ",
                   report::fixed(giga(bytes) / time, 1), " GB/s\n"));
}

}  // namespace

void add_pack(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      program.add_subcommand("pack", "Write a model as one file of 4- or 8-bit weights, or as a GGUF file; check one");
  command->footer(
      "Examples: mixtral pack DIR model.mixtral --weights p4 --head p8\n"
      "          mixtral pack DIR model.mixtral --weights p4 --calibrate FILE\n"
      "          mixtral pack DIR model.gguf --weights q8_0\n"
      "          mixtral pack --synthetic mixtral-8x7b --layers 2 random.mixtral --weights p4\n"
      "          mixtral pack FILE.gguf model.mixtral --weights import\n"
      "          mixtral pack --verify model.mixtral");
  add_texts(*command, "paths", options->paths, "IN OUT: a model and the file to write; with --synthetic: OUT")
      ->type_name("PATH")
      ->expected(2);
  std::vector<std::string> names = kWeightsFormats;
  names.insert(names.end(), kGgufFormats.begin(), kGgufFormats.end());
  const auto formats = CLI::IsMember(names);
  names.emplace_back(kImport);
  auto* weights = command
                      ->add_option("--weights", options->weights,
                                   "Format of experts, attention and head; f16, q8_0 and q4_0 are for OUT.gguf; "
                                   "import: what opening a GGUF file makes of each, Q8_0, Q4_0, Q4_1 and Q4_K as they "
                                   "are")
                      ->check(CLI::IsMember(names));
  command->add_option("--attention", options->attention, "Another format of the attention")->check(formats);
  command->add_option("--head", options->head, "Another format of the head; none: a file for embeddings alone")
      ->check(formats | CLI::IsMember({kNoHead}));
  auto* synthetic = add_synthetic_option(*command, options->synthetic);
  add_number(*command, "--layers", options->layers, {1, 1024}, "Layers of the synthetic model (default: all)")
      ->needs(synthetic);
  auto* calibrate = add_paths(*command, "--calibrate", options->calibrate,
                              "Texts that the model reads first, files or pipes, - for stdin: input channels count as "
                              "much as they are used")
                        ->excludes(synthetic);
  add_number(*command, "--max-tokens", options->max_tokens, {1}, "Of each text no more than the first N tokens")
      ->needs(calibrate);
  auto* check = command->add_option("--verify", options->verify, "Compare the checksums of this packed file")
                    ->type_name("PATH")
                    ->excludes(weights)
                    ->excludes(synthetic);
  add_machine_options(*command, options->common);
  command->callback([options, weights, check] {
    if (check->count() > 0) {
      if (!options->paths.empty()) throw CLI::ExtrasError({options->paths.front()});
      return verify(options->verify, options->common.threads);
    }
    if (weights->count() == 0) throw CLI::RequiredError("--weights");
    if (options->paths.size() != (options->synthetic.empty() ? 2u : 1u)) {
      throw CLI::RequiredError(options->synthetic.empty() ? "IN and OUT" : "OUT, and nothing else,");
    }
    require_formats_of(*options);
    pack(*options);
  });
}

}  // namespace mixtral::cli
