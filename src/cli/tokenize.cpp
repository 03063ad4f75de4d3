// mixtral tokenize: text to token ids and back.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.hpp"
#include "common.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/runtime/loaded_model.hpp"

namespace mixtral::cli {
namespace {

using nlohmann::json;

struct Options {
  CommonOptions common;
  bool decode = false;
  bool batch = false;
  bool bos = false;
  bool special = false;
};

json parse_stdin() {
  try {
    return json::parse(read_stdin());
  } catch (const json::exception& error) {
    const std::string_view what = error.what();  // behind the library's own name of the error
    fail(ErrorCode::kBadFormat, "stdin: no JSON: ", what.substr(what.find("] ") + 2));
  }
}

// The items of a JSON array, each turned into something else; `what` names it in messages.
template <class F>
json map_array(const json& array, const char* what, F f) {
  require(array.is_array(), ErrorCode::kBadFormat, "stdin: expected an array of ", what);
  json results = json::array();
  for (const json& item : array) results.push_back(f(item));
  return results;
}

// A text is looked at here, not answered: what was added to the vocabulary is shown as the tokens that it may become.
json encode(const Tokenizer& tokenizer, const std::string& text, const Options& options) {
  std::vector<TokenId> ids = tokenizer.encode(text, options.special ? SpecialTokens::kAll : SpecialTokens::kAdded);
  if (options.bos) ids.insert(ids.begin(), tokenizer.vocabulary().bos_id);
  return ids;
}

std::string decode(const Tokenizer& tokenizer, const json& ids) {
  require(ids.is_array(), ErrorCode::kBadFormat, "stdin: expected an array of ids");
  const Index size = std::max(tokenizer.vocabulary().size(), tokenizer.vocabulary().n_ids);
  std::vector<TokenId> list;
  for (const json& id : ids) {
    require(id.is_number_integer() && id >= 0 && id < size, "stdin: item ", list.size(), " of the ids is ",
            id.is_primitive() ? id.dump(-1, ' ', true) : id.type_name(), ", expected an integer from 0 to ", size - 1);
    list.push_back(id.get<TokenId>());
  }
  return tokenizer.decode(list);
}

void run(const Options& options) {
  const Tokenizer tokenizer = open_tokenizer(options.common.model);
  for (const std::string& note : tokenizer.vocabulary().notes) write_message("mixtral: note: " + note);
  require(!options.bos || tokenizer.vocabulary().bos_id >= 0, "--bos: this tokenizer has no BOS token");
  if (options.decode && !options.batch) return write_stdout(decode(tokenizer, parse_stdin()));
  json answer;
  if (options.decode) {
    answer = map_array(parse_stdin(), "id arrays", [&](const json& ids) { return decode(tokenizer, ids); });
  } else if (options.batch) {
    answer = map_array(parse_stdin(), "texts", [&](const json& text) {
      require(text.is_string(), ErrorCode::kBadFormat, "stdin: expected an array of texts");
      return encode(tokenizer, text.get_ref<const std::string&>(), options);
    });
  } else {
    answer = encode(tokenizer, read_stdin(), options);
  }
  write_stdout(answer.dump() + '\n');
}

}  // namespace

void add_tokenize(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("tokenize", "Turn the text on stdin into token ids, or ids into text");
  add_common_options(*command, options->common);
  CLI::Option* decode = command->add_flag("--decode", options->decode, "Read a JSON array of ids, write their text");
  command->add_flag("--batch", options->batch, "Read a JSON array of texts (or of id arrays), answer with an array");
  command->add_flag("--bos", options->bos, "Begin with the BOS token")->excludes(decode);
  command
      ->add_flag(
          "--special", options->special,
          "Take special tokens that the text spells, as <s>, for tokens; without it only those that were added to "
          "the model's own")
      ->excludes(decode);
  command->footer(
      "Example:\n"
      "  printf 'Hello world' | mixtral tokenize --model DIR\n"
      "  echo '[[1, 422], [409]]' | mixtral tokenize --model DIR --decode --batch");
  command->callback([options] { run(*options); });
}

}  // namespace mixtral::cli
