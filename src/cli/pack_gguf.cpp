#include "cli/pack_gguf.hpp"

#include "cli/deferred_signals.hpp"
#include "cli/loaded_model.hpp"
#include "mixtral/core/thread_executor.hpp"
#include "mixtral/io/gguf.hpp"
#include "mixtral/io/gguf_weights.hpp"
#include "mixtral/io/gguf_writer.hpp"
#include "mixtral/io/synthetic.hpp"
#include "mixtral/text/vocabulary_files.hpp"
#include "report/numbers.hpp"

namespace mixtral::cli {
namespace {

GgmlType type_of(const std::string& name) {
  return name == "f16" ? GgmlType::kF16 : name == "q4_0" ? GgmlType::kQ4_0 : GgmlType::kQ8_0;
}

GgufFormats formats_of(const GgufRequest& request) {
  GgufFormats formats = GgufFormats::all(type_of(request.weights));
  if (!request.attention.empty()) formats.attention = type_of(request.attention);
  if (!request.head.empty()) formats.head = type_of(request.head);
  return formats;
}

// What a GGUF file calls its model, else what the path does.
std::string name_of_model(const GgufRequest& request) {
  if (!request.synthetic.empty()) return request.synthetic;
  const std::filesystem::path& in = request.in;
  if (is_gguf(in)) return std::string(GgufFile(in).text("general.name").value_or(in.stem().string()));
  const std::filesystem::path path = std::filesystem::absolute(in).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

// A signal meanwhile ends it and leaves nothing.
void write(const GgufRequest& request, const OpContext& ctx, const ModelConfig& config, WeightSource source,
           const std::vector<EmbeddedFile>& files) {
  std::vector<std::string> notes;
  const std::string where = request.synthetic.empty() ? request.in.string() : request.synthetic;
  GgufOptions options{.formats = formats_of(request),
                      .name = name_of_model(request),
                      .tokenizer = gguf_tokenizer(files, where, config.vocab_size, config.eos_ids, notes),
                      .progress = {}};
  if (options.tokenizer.empty()) notes.push_back(where + ": no tokenizer, so the GGUF file has none either");
  for (const std::string& note : notes) write_message("mixtral: note: " + note);
  const DeferredSignals signals;
  ProgressBar bar("pack");
  options.progress = [&](Index done, Index all) {
    DeferredSignals::check();
    bar.show(done, all);
  };
  const double begin = seconds();
  write_gguf(request.out, ctx, config, source, options);
  const double time = seconds() - begin, bytes = static_cast<double>(std::filesystem::file_size(request.out));
  bar.finish();
  write_stdout(str(request.out.string(), ": ", report::fixed(1e-9 * bytes, 2), " GB, ",
                   report::fixed(8 * bytes / static_cast<double>(count_parameters(config).total), 2),
                   " bits a weight, ", report::fixed(time, 1), " s\n"));
}

}  // namespace

const std::vector<std::string> kGgufFormats = {"f16", "q8_0", "q4_0"};

bool names_gguf(const std::filesystem::path& out) { return out.extension() == ".gguf"; }

void pack_gguf(const GgufRequest& request, const CommonOptions& common) {
  const KernelTable table = table_of(common);
  ThreadExecutor workers(common.threads);
  SignalledExecutor executor(workers);
  Scratch scratch;
  const OpContext ctx{table, executor, scratch};
  if (!request.synthetic.empty()) {
    SyntheticWeights source(executor);
    return write(request, ctx, synthetic_config(request.synthetic, request.layers), source, {});
  }
  if (is_gguf(request.in)) {  // no tensor is there longer than it is packed
    GgufWeights source(request.in, executor);
    return write(request, ctx, source.config(), source, source.files());
  }
  const Checkpoint checkpoint = load_checkpoint(request.in);
  for (const std::string& note : checkpoint.notes) write_message("mixtral: note: " + note);
  CheckpointWeights source(checkpoint);
  write(request, ctx, checkpoint.model.config, source,
        checkpoint.files.empty() ? read_tokenizer_files(request.in) : checkpoint.files);
}

}  // namespace mixtral::cli
