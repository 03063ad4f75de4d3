// `mixtral generate`: continue a prompt, streaming.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "cli/arguments.hpp"
#include "cli/commands.hpp"
#include "cli/loaded_model.hpp"
#include "mixtral/runtime/generate.hpp"
#include "mixtral/runtime/routing_stats.hpp"
#include "report/routing_tables.hpp"

namespace mixtral::cli {
namespace {

struct Options {
  CommonOptions common;
  std::string prompt;
  std::optional<std::string> prompt_file;
  std::vector<TokenId> ids;
  Index n = 128;
  bool special = false, print_ids = false, ignore_eos = false, routes = false;
  SamplerOptions sampler;
  std::vector<std::string> stops;
};

// The library's options, but for the callbacks.
GenerateOptions library_options(const Options& options, const ModelConfig& config) {
  GenerateOptions out;
  out.max_tokens = options.n;
  out.sampler = options.sampler;
  if (!options.ignore_eos) out.stop_ids = config.eos_ids;
  out.stop_strings = options.stops;
  return out;
}

// A prompt file's bytes are the prompt, all of them.
std::vector<TokenId> prompt_of(const Options& options, const LoadedModel& loaded) {
  if (!options.ids.empty()) return options.ids;
  return loaded.prompt(options.prompt_file ? read_input(*options.prompt_file) : options.prompt,
                       options.special ? SpecialTokens::kAll : SpecialTokens::kAsText);
}

void run(const Options& options) {
  const LoadedModel loaded = load_model(options.common);
  Session session(loaded, {.kv_dtype = kv_type(options.common.kv)});
  session.feed(prompt_of(options, loaded));
  const auto prompt_tokens = static_cast<Index>(session.tokens().size());
  RoutingStats routing(loaded.config());
  PromptProgress progress(session);
  Observers observers{&routing, &progress};

  GenerateOptions settings = library_options(options, loaded.config());
  const bool stream = loaded.tokenizer.has_value() && !options.common.json;
  const double begin = seconds();
  double first = 0;  // when the first token was drawn
  settings.on_token = [&](TokenId, std::string_view text) {
    if (first == 0) {
      first = seconds();
      progress.end();
    }
    if (stream) write_stdout(text);
    return true;
  };
  const GenerateResult result =
      generate(session, loaded.tokenizer ? &*loaded.tokenizer : nullptr, settings, &observers);
  const double end = seconds();
  if (first == 0) first = end;

  if (!options.common.json) {
    if (stream) write_stdout("\n");
    if (options.routes) write_stdout(report::routes_text(routing));
    if (options.print_ids || !loaded.tokenizer) write_stdout(nlohmann::json(result.ids).dump() + "\n");
    return;
  }
  nlohmann::json out = {{"ids", result.ids},
                        {"stop_reason", std::string(name_of(result.reason))},
                        {"prompt_tokens", prompt_tokens},
                        {"prompt_seconds", first - begin},
                        {"decode_seconds", end - first}};
  if (loaded.tokenizer) out["text"] = result.text;
  if (options.routes) out["routes"] = report::routes_json(routing);
  write_stdout(out.dump() + "\n");
}

}  // namespace

void add_generate(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("generate", "Continue a prompt");
  command->footer("Example: mixtral generate --prompt \"RETURN VALUE\" --n 64 --greedy --routes");
  add_common_options(*command, options->common);
  add_kv_option(*command, options->common);
  auto* prompt =
      command->add_option("-p,--prompt", options->prompt, "Text to continue; begins with BOS where the model wants it");
  auto* file = command
                   ->add_option("--prompt-file", options->prompt_file,
                                "A file or pipe that holds the prompt, - for stdin: all its bytes, a line end at the "
                                "end of it, too")
                   ->type_name("FILE")
                   ->excludes(prompt);
  command->add_flag("--special", options->special, "Take special tokens that the prompt spells, as <s>, for tokens");
  add_ids_option(*command, options->ids, "Token ids to continue, as they are: 1,2,3")->excludes(prompt)->excludes(file);
  add_number(*command, "-n,--n", options->n, {}, "Most tokens to generate")->capture_default_str();
  add_sampling_options(*command, options->sampler);
  add_texts(*command, "--stop", options->stops, "End before this text; may be given several times");
  command->add_flag("--print-ids", options->print_ids, "Print the new ids as a JSON array, as the last line");
  command->add_flag("--ignore-eos", options->ignore_eos, "Go on after the end-of-text token");
  command->add_flag("--routes", options->routes, "Print which share of the tokens each expert worked on, per layer");
  command->callback([options] { run(*options); });
}

}  // namespace mixtral::cli
