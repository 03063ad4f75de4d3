// `mixtral compare`: how far a model is from a reference, in what it predicts and in the experts it chooses.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/arguments.hpp"
#include "cli/commands.hpp"
#include "cli/compare_report.hpp"
#include "cli/deferred_signals.hpp"
#include "cli/html.hpp"
#include "cli/loaded_model.hpp"
#include "cli/text_pieces.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/runtime/comparison.hpp"

namespace mixtral::cli {
namespace {

using json = nlohmann::ordered_json;  // fields in the order written here

struct Options {
  CommonOptions common;
  std::filesystem::path reference;
  std::optional<std::string> report;
  std::vector<std::filesystem::path> texts;
  std::string reference_kv = "bf16";
  Index max_tokens = 0;
};

ComparedFiles files_of(const LoadedModel& loaded) {
  return {loaded.path.string(), weight_bytes(loaded.model()), weight_groups(loaded.model())};
}

// The reference's, or the model's if it has none. Throws Error(kInvalidArgument) if they differ.
const Tokenizer& tokenizer_of(const LoadedModel& model, const LoadedModel& reference) {
  if (!reference.tokenizer) return model.require_tokenizer();
  if (!model.tokenizer) return *reference.tokenizer;
  const std::vector<std::string>&m = model.tokenizer->vocabulary().pieces,
        &r = reference.tokenizer->vocabulary().pieces;
  require(m.size() == r.size(), "compare: the tokenizer of ", model.path.string(), " has ", m.size(),
          " pieces, that of ", reference.path.string(), " ", r.size());
  const auto at = static_cast<std::size_t>(std::mismatch(m.begin(), m.end(), r.begin()).first - m.begin());
  require(at == m.size(), "compare: the tokenizers of ", model.path.string(), " and ", reference.path.string(),
          " differ: piece ", at, " is \"", at < m.size() ? m[at] : "", "\" in the one and \"",
          at < r.size() ? r[at] : "", "\" in the other");
  return *reference.tokenizer;
}

json distribution_json(const Distribution& d, bool all = true) {
  if (d.n == 0) return nullptr;
  json out = {{"n", d.n}, {"mean", d.mean}, {"median", d.median}};
  if (all) {
    out.update({{"mean_error", d.mean_error},
                {"p90", d.p90},
                {"p99", d.p99},
                {"p99_low", d.p99_low},
                {"p99_high", d.p99_high},
                {"max", d.max}});
  }
  return out;
}

json gating_json(const GatingStability& g) {
  return {{"decisions", g.n},
          {"same_set", g.same_set()},
          {"same_first", g.same_first()},
          {"margin_where_differing", distribution_json(g.margin_where_differing, false)},
          {"margin_where_same", distribution_json(g.margin_where_same, false)}};
}

json files_json(const ComparedFiles& files) {
  json formats = json::object();
  for (const WeightGroup& group : files.groups) formats[std::string(name_of(group.group))] = group.formats;
  return {{"path", files.path}, {"weights_bytes", files.bytes}, {"formats", std::move(formats)}};
}

json result_json(const ComparisonSetup& setup, const Comparison& comparison, const ComparisonResult& r) {
  json texts = json::array(), layers = json::array(), buckets = json::array();
  for (const ComparedText& text : setup.texts) texts.push_back({{"file", text.file}, {"targets", text.n_targets}});
  for (const GatingStability& layer : r.layers) layers.push_back(gating_json(layer));
  constexpr Index kBuckets = 16;
  for (const PositionBucket& b : kl_by_position(comparison.positions(), kBuckets)) {
    buckets.push_back({{"begin", b.begin}, {"end", b.end}, {"kl", distribution_json(b.kl)}});
  }
  const double difference = r.model_cross_entropy - r.reference_cross_entropy;
  return {{"model", files_json(setup.model)},
          {"reference", files_json(setup.reference)},
          {"texts", std::move(texts)},
          {"inputs", r.n_inputs},
          {"targets", r.n_targets},
          {"context", setup.context},
          {"isa", setup.isa},
          {"threads", setup.threads},
          {"cross_entropy",
           {{"model", r.model_cross_entropy},
            {"reference", r.reference_cross_entropy},
            {"difference", difference},
            {"difference_error", r.difference_error}}},
          {"perplexity",
           {{"model", std::exp(r.model_cross_entropy)},
            {"reference", std::exp(r.reference_cross_entropy)},
            {"ratio", std::exp(difference)}}},
          {"kl", distribution_json(r.kl)},
          {"kl_by_position", std::move(buckets)},
          {"top1_agreement", static_cast<double>(r.n_same_top1) / static_cast<double>(r.n_targets)},
          {"gating", gating_json(r.gating)},
          {"layers", std::move(layers)}};
}

std::string gating_row(const std::string& name, const GatingStability& g) {
  const auto median = [](const Distribution& d) { return d.n == 0 ? std::string("-") : fixed(d.median, 4); };
  return str(padded(name, 5), padded(percent(g.n_same_set, g.n) + " %", 15),
             padded(percent(g.n_same_first, g.n) + " %", 19), padded(median(g.margin_where_differing), 14),
             padded(median(g.margin_where_same), 10), "\n");
}

std::string result_text(const ComparisonSetup& setup, const ComparisonResult& r) {
  const double difference = r.model_cross_entropy - r.reference_cross_entropy;
  const auto row = [](const char* name, double model, double reference, const std::string& third) {
    return str(name, padded(fixed(model, 6), 14), padded(fixed(reference, 6), 14), third, "\n");
  };
  std::string out =
      str("model      ", setup.model.path, "\nreference  ", setup.reference.path, "\ntokens     ", r.n_inputs,
          " read, ", r.n_targets, " predicted\n\n                       model     reference\n");
  out += row("cross-entropy", r.model_cross_entropy, r.reference_cross_entropy,
             str("  ", difference < 0 ? "" : "+", fixed(difference, 6), " (standard error ",
                 fixed(r.difference_error, 6), ")"));
  out += row("perplexity   ", std::exp(r.model_cross_entropy), std::exp(r.reference_cross_entropy),
             "  x " + fixed(std::exp(difference), 6));
  out += str("\nKL divergence         mean ", fixed(r.kl.mean, 6), " (standard error ", fixed(r.kl.mean_error, 6),
             "), median ", fixed(r.kl.median, 6), ", 99th percentile ", fixed(r.kl.p99, 6), " (",
             fixed(r.kl.p99_low, 6), " to ", fixed(r.kl.p99_high, 6), "), largest ", fixed(r.kl.max, 6),
             " nats\nsame likeliest token  ", percent(r.n_same_top1, r.n_targets), " % of the positions\n\n");
  out += str(
      "gating: tokens with the same experts; median router margin where the set differs and where it agrees\nlayer",
      padded(str("same top-", setup.n_experts_per_tok, " set"), 15), "  same first expert        differ     agree\n");
  for (std::size_t l = 0; l < r.layers.size(); ++l) out += gating_row(str(l), r.layers[l]);
  return out + gating_row("all", r.gating);
}

// Runs all texts and says how many tokens each of them gave.
std::vector<ComparedText> compare_texts(const Options& options, const Tokenizer& tokenizer, Comparison& comparison) {
  std::vector<ComparedText> texts;
  std::vector<Piece> all;
  Index inputs = 0, targets = 0, done = 0;
  for (const std::filesystem::path& file : options.texts) {
    texts.push_back({input_name(file), 0});
    for (Piece& piece : text_pieces(file, tokenizer, comparison.max_positions(), options.max_tokens)) {
      inputs += static_cast<Index>(piece.inputs.size());
      texts.back().n_targets += static_cast<Index>(piece.targets.size());
      all.push_back(std::move(piece));
    }
    targets += texts.back().n_targets;
  }
  require(targets > 0, "compare: the texts have no token to predict");
  ProgressBar bar("compare", inputs);
  for (const Piece& piece : all) {
    comparison.run(piece.inputs, piece.targets, [&](Index n) { bar.show(done + n); });
    done += static_cast<Index>(piece.inputs.size());
  }
  return texts;
}

void run(const Options& options) {
  const LoadedModel model = load_model(options.common);
  const LoadedModel reference(options.reference, {.isa = isa_of(options.common),
                                                  .bf16_products = bf16_products_of(options.common),
                                                  .executor = model.executor,
                                                  .resident = options.common.resident});
  Comparison comparison(reference, model,
                        {.reference_kv_dtype = kv_type(options.reference_kv), .kv_dtype = kv_type(options.common.kv)});
  const Tokenizer& tokenizer = tokenizer_of(model, reference);
  // Says at once, not after an hour, if the place of the report cannot be written.
  if (options.report) {
    require_no_input(*options.report, options.common.model);
    require_no_input(*options.report, options.reference);
    AtomicFileWriter writable(*options.report);
  }

  const ModelConfig& config = reference.config();
  const ComparisonSetup setup{.model = files_of(model),
                              .reference = files_of(reference),
                              .texts = compare_texts(options, tokenizer, comparison),
                              .context = comparison.max_positions(),
                              .n_experts = config.n_experts,
                              .n_experts_per_tok = config.n_experts_per_tok,
                              .isa = model.table.name,
                              .threads = options.common.threads};
  const ComparisonResult result = comparison.result();
  if (options.report) {
    const std::string page = comparison_page(setup, comparison, result);
    const DeferredSignals signals;
    AtomicFileWriter file(*options.report);
    file.write(std::as_bytes(std::span(page)));
    file.commit();
  }
  if (!options.common.json) return write_stdout(result_text(setup, result));
  // Names of files may be no UTF-8.
  const auto replace = json::error_handler_t::replace;
  write_stdout(result_json(setup, comparison, result).dump(-1, ' ', false, replace) + "\n");
}

}  // namespace

void add_compare(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand(
      "compare", "How far a model is from a reference: perplexity, KL divergence, stability of the routing");
  command->footer("Example: mixtral compare --model DIR --reference DIR --text FILE --report out.html");
  add_common_options(*command, options->common);
  add_kv_option(*command, options->common);
  command->add_option("--reference", options->reference, "Directory or packed file of the model to compare with")
      ->type_name("PATH")
      ->required();
  command->add_option("--reference-kv", options->reference_kv, "What keys and values of the reference are kept in")
      ->check(CLI::IsMember(kKvTypeNames))
      ->capture_default_str();
  add_paths(*command, "--text", options->texts,
            "Text files or pipes, - for stdin; each is cut into pieces of the shorter context length")
      ->required();
  add_number(*command, "--max-tokens", options->max_tokens, {1}, "Read no more than the first N tokens of each file");
  command->add_option("--report", options->report, "Write a page with pictures to this file (HTML, stands alone)")
      ->type_name("OUT.html");
  command->callback([options] { run(*options); });
}

}  // namespace mixtral::cli
