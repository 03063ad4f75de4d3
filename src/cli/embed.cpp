// `mixtral embed`: texts as vectors, a JSON line each.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/arguments.hpp"
#include "cli/commands.hpp"
#include "cli/loaded_model.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/runtime/embedding.hpp"

namespace mixtral::cli {
namespace {

struct Options {
  CommonOptions common;
  std::vector<std::filesystem::path> texts;
  std::string pooling = "mean";
  Index layer = kFinalHidden;
  bool lines = false;
};

// A part of a file, and what it is called in messages and in the answer.
struct Text {
  std::string file, text;
  Index line = 0;  // from 1; 0: the whole file
};

std::vector<Text> texts_of(const std::filesystem::path& path, bool lines) {
  const std::string bytes = read_input(path), name = input_name(path);
  if (!lines) return {{name, bytes, 0}};
  std::vector<Text> out;
  Index line = 0;
  for (std::size_t begin = 0; begin < bytes.size();) {
    const std::size_t end = std::min(bytes.find('\n', begin), bytes.size());
    ++line;
    if (end > begin) out.push_back({name, bytes.substr(begin, end - begin), line});
    begin = end + 1;
  }
  return out;
}

std::string answer_of(const Text& text, std::size_t n_tokens, const std::vector<float>& vector) {
  // Names of files may be no UTF-8.
  const std::string file = nlohmann::json(text.file).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::string out = str("{\"file\":", file);
  if (text.line > 0) out += str(",\"line\":", text.line);
  out += str(",\"tokens\":", static_cast<Index>(n_tokens), ",\"embedding\":[");
  for (std::size_t k = 0; k < vector.size(); ++k) out += str(k == 0 ? "" : ",", vector[k]);
  return out + "]}\n";
}

void run(const Options& options) {
  const LoadedModel loaded = load_model(options.common, Head::kNone);
  Embedder embedder(loaded, {.kv_dtype = kv_type(options.common.kv)});
  const Pooling pooling = options.pooling == name_of(Pooling::kMean) ? Pooling::kMean : Pooling::kLast;
  for (const std::filesystem::path& path : options.texts) {
    for (const Text& text : texts_of(path, options.lines)) {
      const std::vector<TokenId> ids = loaded.prompt(text.text);
      const std::string name = text.line > 0 ? str(text.file, ": line ", text.line) : text.file;
      require(!text.text.empty(), name, ": is empty");
      const Index most = loaded.config().max_positions;
      require(static_cast<Index>(ids.size()) <= most, ErrorCode::kContextFull, name, ": ", ids.size(),
              " tokens do not fit into a context of ", most);
      write_stdout(answer_of(text, ids.size(), embedder.embed(ids, pooling, options.layer)));
    }
  }
}

}  // namespace

void add_embed(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      program.add_subcommand("embed", "Texts as vectors, for retrieval: a line of JSON for each, of length 1");
  command->footer("Example: mixtral embed --lines --text questions.txt");
  add_model_options(*command, options->common);
  add_kv_option(*command, options->common);
  add_paths(*command, "--text", options->texts, "Text files or pipes, - for stdin; each is one text")->required();
  command->add_flag("--lines", options->lines, "Each line that is not empty is one text");
  command->add_option("--pooling", options->pooling, "mean: of all tokens; last: the last token's, which saw all")
      ->check(CLI::IsMember({"mean", "last"}))
      ->capture_default_str();
  add_number(*command, "--layer", options->layer, {kFinalHidden, 1024},
             "Hidden rows behind so many layers; -1: what the head reads")
      ->capture_default_str();
  command->callback([options] { run(*options); });
}

}  // namespace mixtral::cli
