// `mixtral eval`: how well a model predicts given ids or a text, and everything on the way to the logits.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/commands.hpp"
#include "cli/deferred_signals.hpp"
#include "cli/loaded_model.hpp"
#include "mixtral/io/safetensors.hpp"
#include "mixtral/runtime/evaluator.hpp"
#include "report/evaluation_tables.hpp"

namespace mixtral::cli {
namespace {

struct Options {
  CommonOptions common;
  std::vector<TokenId> ids;
  std::optional<std::string> text_file, out;
};

// --ids: one piece; each id is the target of those before it.
std::vector<TextPiece> pieces_of(const Options& options, const LoadedModel& loaded) {
  if (!options.text_file) return {{options.ids, {options.ids.begin() + 1, options.ids.end()}}};
  return read_pieces(*options.text_file, loaded.require_tokenizer(), loaded.config().max_positions);
}

template <class T>
SafetensorsEntry entry(std::string name, const std::vector<T>& values, std::vector<Index> shape) {
  return {std::move(name), dtype_of<T>::value, std::move(shape), std::as_bytes(std::span(values))};
}

// Named as in the golden cases of tests/golden.
void write_trace(const std::string& path, const ModelConfig& c, const std::vector<TokenId>& ids,
                 const SequenceTrace& trace) {
  const auto n = static_cast<Index>(ids.size());
  std::vector<SafetensorsEntry> tensors = {entry("ids", ids, {n}), entry("embed", trace.embed, {n, c.dim})};
  for (std::size_t l = 0; l < trace.layers.size(); ++l) {
    const SequenceTrace::Layer& layer = trace.layers[l];
    const std::string name = str("layer.", l, ".");
    tensors.push_back(entry(name + "output", layer.output, {n, c.dim}));
    tensors.push_back(entry(name + "router_logits", layer.router_logits, {n, c.n_experts}));
    tensors.push_back(entry(name + "expert_ids", layer.expert_ids, {n, c.n_experts_per_tok}));
    tensors.push_back(entry(name + "expert_weights", layer.expert_weights, {n, c.n_experts_per_tok}));
  }
  tensors.push_back(entry("final_norm", trace.final_norm, {n, c.dim}));
  tensors.push_back(entry("logits", trace.logits, {n, c.vocab_size}));
  if (!trace.token_nll.empty()) {
    tensors.push_back(entry("token_nll", trace.token_nll, {static_cast<Index>(trace.token_nll.size())}));
  }
  const DeferredSignals signals;
  write_safetensors(path, tensors);
}

void run(const Options& options) {
  const LoadedModel loaded = load_model(options.common);
  const std::vector<TextPiece> pieces = pieces_of(options, loaded);
  if (options.out) require_no_input(*options.out, options.common.model);
  require(!options.out || pieces.size() == 1, "eval: --out takes one sequence of at most ",
          loaded.config().max_positions, " tokens, the text makes ", pieces.size(), " of them");
  Index inputs = 0;
  for (const TextPiece& piece : pieces) inputs += static_cast<Index>(piece.inputs.size());

  Evaluator evaluator(loaded, kv_type(options.common.kv));
  SequenceTrace trace;
  ProgressBar bar("eval", inputs);
  Index done = 0;
  for (const TextPiece& piece : pieces) {
    evaluator.run(piece.inputs, piece.targets, options.out ? &trace : nullptr, [&](Index n) { bar.show(done + n); });
    done += static_cast<Index>(piece.inputs.size());
  }
  bar.finish();
  if (options.out) write_trace(*options.out, loaded.config(), pieces[0].inputs, trace);
  const auto result = report::evaluation_json(evaluator, inputs);
  write_stdout(options.common.json ? result.dump() + "\n" : report::evaluation_text(result));
}

}  // namespace

void add_eval(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("eval", "Cross-entropy, perplexity and expert usage of ids or a text");
  command->footer("Example: mixtral eval --ids 1,17,23,42 --out trace.safetensors --json");
  add_common_options(*command, options->common);
  add_kv_option(*command, options->common);
  auto* source = command->add_option_group("source", "What to read");
  add_ids_option(*source, options->ids, "Token ids, as they are: 1,2,3");
  source
      ->add_option("--text", options->text_file,
                   "A text file or pipe, - for stdin; cut into pieces of the model's context length")
      ->type_name("FILE");
  source->require_option(1);
  command->add_option("--out", options->out, "Write ids, hidden states, routing and logits to this safetensors file");
  command->callback([options] { run(*options); });
}

}  // namespace mixtral::cli
