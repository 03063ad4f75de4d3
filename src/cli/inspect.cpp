// mixtral inspect: what a checkpoint holds and what running it takes. Reads headers only, no weights, unless it is to
// check them.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/arguments.hpp"
#include "cli/commands.hpp"
#include "cli/loaded_model.hpp"
#include "mixtral/core/thread_executor.hpp"
#include "mixtral/io/check_weights.hpp"
#include "mixtral/io/checkpoint.hpp"
#include "mixtral/io/gguf_weights.hpp"
#include "mixtral/io/packed.hpp"
#include "mixtral/model/kv_cache.hpp"
#include "mixtral/runtime/session.hpp"
#include "report/checkpoint_tables.hpp"

namespace mixtral::cli {
namespace {

// Bytes that one pass over `tokens` tokens of a prompt needs beside weights and cache; scratch blocks double as
// they grow, so up to twice that may be held.
Index working_bytes(const Model& model, const KvLayout& kv, const KernelTable& table, Index tokens, int threads) {
  const ModelConfig& c = model.config;
  // Each worker's: gate and up products of a task, if all tokens have one expert; a matrix unit's sums.
  const MatrixView& w1 = model.weights.layers[0].experts[0].w1;
  const ops::Product gate(table, threads, w1, tokens);
  const Index products = 2 * tokens * gate.task_rows(), tiles = gate.needs_work() ? simd::kTileWork : 0;
  const Index attention = 2 * (c.n_heads + c.n_kv_heads) * c.head_dim + c.head_dim;
  const Index experts = c.n_experts_per_tok * (2 * c.dim + c.hidden_dim) + c.n_experts + 2 * c.n_experts_per_tok;
  return tokens * (2 * c.dim + attention + experts) * static_cast<Index>(sizeof(float)) +
         threads * (products + tiles) * static_cast<Index>(sizeof(float)) +
         ops::attention_scratch_bytes(kv, c.n_heads / c.n_kv_heads, c.max_positions, threads);
}

struct Options {
  CommonOptions common;
  bool check = false, without_head = false;
  Index chunk = SessionOptions{}.chunk;
};

report::MemoryNeeds memory_needs(const Model& model, const Options& options) {
  constexpr Index kTokens = 1024;
  const KvLayout kv = kv_layout(model.config, kv_type(options.common.kv));
  const auto cache_bytes = [&](Index tokens) {
    const Index pages = (tokens + KvLayout::kPositions - 1) / KvLayout::kPositions;
    return pages * kv.page_bytes();
  };
  return {.kv_dtype = kv.dtype,
          .kv_bytes_per_1024_tokens = cache_bytes(kTokens),
          .kv_bytes_at_max_positions = cache_bytes(model.config.max_positions),
          .working_bytes = working_bytes(model, kv, table_of(options.common), options.chunk, options.common.threads)};
}

// The weights, and of a packed file all checksums.
report::WeightCheck check(const Model& model, const CommonOptions& options) {
  ThreadExecutor executor(options.threads);
  ProgressBar bar("check");
  const auto show = [&](Index done, Index all) { bar.show(done, all); };
  const double begin = seconds();
  report::WeightCheck out;
  if (std::filesystem::is_regular_file(options.model) && !is_gguf(options.model)) {
    for (const std::string& name : verify_packed(options.model, executor, show))
      out.wrong.push_back({name, "the checksum is not that of the bytes"});
  }
  for (const NonFiniteTensor& t : check_weights(model, executor, show)) {
    out.wrong.push_back({t.name, str(t.count, t.count == 1 ? " number is" : " numbers are",
                                     " not finite, the first at [", t.row, ", ", t.col, "]: ", t.value)});
  }
  out.seconds = seconds() - begin;
  return out;
}

void run(const Options& options) {
  ThreadExecutor executor(options.common.threads);
  const Checkpoint checkpoint =
      load_checkpoint(options.common.model, {.executor = &executor,
                                             .import = import_of(options.common),
                                             .headers_only = !options.check,
                                             .head = options.without_head ? Head::kNone : Head::kRequired});
  const report::MemoryNeeds memory = memory_needs(checkpoint.model, options);
  std::optional<report::WeightCheck> checked;
  if (options.check) checked = check(checkpoint.model, options.common);
  const auto result = report::checkpoint_json(checkpoint, memory, checked);
  write_stdout(options.common.json ? result.dump() + "\n" : report::checkpoint_text(result));
  if (checked && !checked->wrong.empty())
    fail(ErrorCode::kBadFormat, options.common.model.string(), ": ", report::verdict(checked->wrong.size()));
}

}  // namespace

void add_inspect(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand(
      "inspect", "Config, tensors, parameters and memory needs of a model; reads no weights unless it checks them");
  command->footer("Examples: mixtral inspect --model DIR --json\n          mixtral inspect --model DIR --check");
  add_common_options(*command, options->common);
  add_kv_option(*command, options->common);
  add_number(*command, "--chunk", options->chunk, {1, Index{1} << 16},
             "Tokens of a prompt in one step, which working memory is for")
      ->capture_default_str();
  command->add_flag("--without-head", options->without_head,
                    "As for embeddings: what is taken without the head, which need not be there");
  command->add_flag("--check", options->check,
                    "Look through all weights for numbers that are not finite, and compare the checksums of a packed "
                    "file; exit status 1 if anything is wrong");
  command->callback([options] { run(*options); });
}

}  // namespace mixtral::cli
