#include "mixtral/runtime/open_model.hpp"

#include <algorithm>

#include "mixtral/core/error.hpp"
#include "mixtral/core/float_environment.hpp"
#include "mixtral/text/vocabulary_files.hpp"

namespace mixtral {
namespace {

// The ids that end a sequence by the tokenizer's files; -1: none.
std::vector<TokenId> end_ids(const OpenedModel& opened, const Vocabulary& v) {
  std::vector<TokenId> ids = {v.eos_id};
  try {
    if (opened.chat_style().style == ChatStyle::kChatMl) ids.push_back(v.find("<|im_end|>"));
  } catch (const Error&) {  // a template of no known style says nothing here; who asks for the style is told
  }
  return ids;
}

}  // namespace

const Tokenizer& OpenedModel::require_tokenizer() const {
  require(tokenizer.has_value(), ErrorCode::kNotFound, path.string(),
          ": no tokenizer file to read text with, give token ids");
  return *tokenizer;
}

ChatStyleChoice OpenedModel::chat_style() const {
  return choose_chat_style(chat_template, require_tokenizer().vocabulary(), path.string());
}

OpenedModel open_model(const std::filesystem::path& path, const LoadOptions& options) {
  const FloatScope floats;
  OpenedModel opened{path, load_checkpoint(path, options), {}, {}};
  // A packed file has brought its own along.
  const std::vector<EmbeddedFile>& own = opened.model.files;
  const std::vector<EmbeddedFile> files = own.empty() ? read_tokenizer_files(path) : own;
  if (files.empty()) return opened;
  ModelConfig& config = opened.model.config;
  Vocabulary v = parse_tokenizer_files(files, path.string());
  v.n_ids = config.vocab_size;
  std::vector<std::string>& notes = opened.model.notes;
  notes.insert(notes.end(), v.notes.begin(), v.notes.end());
  if (v.size() > config.vocab_size) {
    notes.push_back(str(path.string(), ": the tokenizer has ", v.size(), " pieces, the model ", config.vocab_size,
                        ": it refuses the ids from there on"));
  }
  opened.tokenizer = Tokenizer(std::move(v));
  try {
    opened.chat_template = find_chat_template(files, path.string());
  } catch (const Error& error) {  // only a conversation cannot be had then
    notes.push_back(error.what());
    opened.chat_template = "";
  }
  for (const TokenId id : end_ids(opened, opened.tokenizer->vocabulary())) {
    const bool known = std::find(config.eos_ids.begin(), config.eos_ids.end(), id) != config.eos_ids.end();
    if (id >= 0 && id < config.vocab_size && !known) config.eos_ids.push_back(id);
  }
  return opened;
}

Tokenizer open_tokenizer(const std::filesystem::path& path) {
  Vocabulary v = load_vocabulary(path);
  v.n_ids = read_vocab_size(path);
  return Tokenizer(std::move(v));
}

}  // namespace mixtral
