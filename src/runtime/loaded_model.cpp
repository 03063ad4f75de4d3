#include "mixtral/runtime/loaded_model.hpp"

#include <algorithm>
#include <utility>

#include "mixtral/core/error.hpp"
#include "mixtral/core/float_environment.hpp"
#include "mixtral/core/thread_executor.hpp"
#include "mixtral/runtime/available_threads.hpp"
#include "mixtral/text/vocabulary_files.hpp"

namespace mixtral {
namespace {

std::shared_ptr<Executor> executor_of(const ModelOptions& options) {
  if (options.executor != nullptr) return options.executor;
  return std::make_shared<ThreadExecutor>(options.threads > 0 ? options.threads : available_threads());
}

// The ids that end a sequence by the tokenizer's files; -1: none.
std::vector<TokenId> end_ids(const LoadedModel& loaded, const Vocabulary& v) {
  std::vector<TokenId> ids = {v.eos_id};
  try {
    if (loaded.chat_style().style == ChatStyle::kChatMl) ids.push_back(v.find("<|im_end|>"));
  } catch (const Error&) {  // a template of no known style says nothing here; who asks for the style is told
  }
  return ids;
}

void open_texts(LoadedModel& loaded) {
  const std::string where = loaded.path.string();
  // A packed file has brought its own along.
  const std::vector<EmbeddedFile>& own = loaded.checkpoint.files;
  const std::vector<EmbeddedFile> files = own.empty() ? read_tokenizer_files(loaded.path) : own;
  if (files.empty()) return;
  ModelConfig& config = loaded.checkpoint.model.config;
  Vocabulary v = parse_tokenizer_files(files, where);
  v.n_ids = config.vocab_size;
  std::vector<std::string>& notes = loaded.checkpoint.notes;
  notes.insert(notes.end(), v.notes.begin(), v.notes.end());
  if (v.size() > config.vocab_size) {
    notes.push_back(str(where, ": the tokenizer has ", v.size(), " pieces, the model ", config.vocab_size,
                        ": it refuses the ids from there on"));
  }
  loaded.tokenizer = Tokenizer(std::move(v));
  try {
    loaded.chat_template = find_chat_template(files, where);
  } catch (const Error& error) {  // only a conversation cannot be had then
    notes.push_back(error.what());
    loaded.chat_template = "";
  }
  for (const TokenId id : end_ids(loaded, loaded.tokenizer->vocabulary())) {
    const bool known = std::find(config.eos_ids.begin(), config.eos_ids.end(), id) != config.eos_ids.end();
    if (id >= 0 && id < config.vocab_size && !known) config.eos_ids.push_back(id);
  }
}

}  // namespace

LoadedModel::LoadedModel(const std::filesystem::path& at, const ModelOptions& options)
    : path(at),
      table(make_table(options.isa.value_or(best_isa()), options.bf16_products)),
      executor(executor_of(options)) {
  const FloatScope floats;
  checkpoint = load_checkpoint(path, {.resident = options.resident,
                                      .executor = executor.get(),
                                      .import = options.import,
                                      .progress = options.progress,
                                      .head = options.head});
  open_texts(*this);
}

LoadedModel::LoadedModel(Model made, const KernelTable& kernels, Executor& workers)
    : table(kernels), executor(std::shared_ptr<void>(), &workers) {
  checkpoint.model = std::move(made);
  // What has a shape must be there; experts that a host's own store brings have none.
  for_each_tensor(config(), [&](const TensorSlot& slot, const Shape<2>&) {
    const MatrixView& w = model().weights.at(slot);
    require(w.data != nullptr || w.rows == 0, slot_name(slot), ": no weights are there, of headers alone");
  });
}

const Tokenizer& LoadedModel::require_tokenizer() const {
  require(tokenizer.has_value(), ErrorCode::kNotFound, path.string(),
          ": no tokenizer file to read text with, give token ids");
  return *tokenizer;
}

void LoadedModel::require_head() const {
  require(config().has_head, ErrorCode::kNotFound, path.string(),
          ": opened without its head, which logits need: it gives hidden rows and embeddings");
}

ChatStyleChoice LoadedModel::chat_style() const {
  return choose_chat_style(chat_template, require_tokenizer().vocabulary(), path.string());
}

std::vector<TokenId> LoadedModel::prompt(std::string_view text, SpecialTokens special) const {
  const Vocabulary& vocabulary = require_tokenizer().vocabulary();
  std::vector<TokenId> ids = tokenizer->encode(text, special);
  if (vocabulary.add_bos && vocabulary.bos_id >= 0) ids.insert(ids.begin(), vocabulary.bos_id);
  return ids;
}

Tokenizer open_tokenizer(const std::filesystem::path& path) {
  Vocabulary v = load_vocabulary(path);
  v.n_ids = read_vocab_size(path);
  return Tokenizer(std::move(v));
}

}  // namespace mixtral
