// `mixtral compare`: how far a model is from a reference, in what it predicts and in the experts it chooses.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/arguments.hpp"
#include "cli/commands.hpp"
#include "cli/deferred_signals.hpp"
#include "cli/loaded_model.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/runtime/comparison.hpp"
#include "report/comparison_page.hpp"
#include "report/comparison_tables.hpp"

namespace mixtral::cli {
namespace {

struct Options {
  CommonOptions common;
  std::filesystem::path reference;
  std::optional<std::string> report;
  std::vector<std::filesystem::path> texts;
  std::string reference_kv = "bf16";
  Index max_tokens = 0;
};

report::ComparedFiles files_of(const LoadedModel& loaded) {
  return {loaded.path.string(), weight_bytes(loaded.model()), report::weight_groups(loaded.model())};
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

// Runs all texts and says how many tokens each of them gave.
std::vector<report::ComparedText> compare_texts(const Options& options, const Tokenizer& tokenizer,
                                                Comparison& comparison) {
  std::vector<report::ComparedText> texts;
  std::vector<TextPiece> all;
  Index inputs = 0, targets = 0, done = 0;
  for (const std::filesystem::path& file : options.texts) {
    texts.push_back({input_name(file), 0});
    for (TextPiece& piece : read_pieces(file, tokenizer, comparison.max_positions(), options.max_tokens)) {
      inputs += static_cast<Index>(piece.inputs.size());
      texts.back().n_targets += static_cast<Index>(piece.targets.size());
      all.push_back(std::move(piece));
    }
    targets += texts.back().n_targets;
  }
  require(targets > 0, "compare: the texts have no token to predict");
  ProgressBar bar("compare", inputs);
  for (const TextPiece& piece : all) {
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
  const report::ComparisonSetup setup{.model = files_of(model),
                                      .reference = files_of(reference),
                                      .texts = compare_texts(options, tokenizer, comparison),
                                      .context = comparison.max_positions(),
                                      .n_experts = config.n_experts,
                                      .n_experts_per_tok = config.n_experts_per_tok,
                                      .isa = model.table.name,
                                      .threads = options.common.threads};
  const ComparisonResult result = comparison.result();
  if (options.report) {
    const std::string page = report::comparison_page(setup, comparison, result);
    const DeferredSignals signals;
    AtomicFileWriter file(*options.report);
    file.write(std::as_bytes(std::span(page)));
    file.commit();
  }
  if (!options.common.json) return write_stdout(report::comparison_text(setup, result));
  // Names of files may be no UTF-8.
  const auto replace = nlohmann::ordered_json::error_handler_t::replace;
  write_stdout(report::comparison_json(setup, comparison, result).dump(-1, ' ', false, replace) + "\n");
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
