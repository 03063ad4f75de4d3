// A model that is open and ready to run: weights, tokenizer, kernels and threads.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/core/executor.hpp"
#include "mixtral/io/checkpoint.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/turn_lock.hpp"
#include "mixtral/text/chat_template.hpp"
#include "mixtral/text/tokenizer.hpp"

namespace mixtral {

struct ModelOptions {
  std::optional<Isa> isa = {};  // kernels of this instruction set; default: the best that runs here
  Bf16Products bf16_products = Bf16Products::kFloat32;
  int threads = 0;                          // standard threads of its own; 0: the CPUs that this process may use
  std::shared_ptr<Executor> executor = {};  // works in place of these
  bool resident = false;                    // as LoadOptions: weights in memory of the process
  QuantizedImport import = QuantizedImport::kPacked;
  std::function<void(Index done, Index all)> progress = {};  // of an import, as LoadOptions
  Head head = Head::kRequired;  // kNone: for an Embedder; sessions refuse to evaluate
};

// What sessions, evaluations and comparisons run on; they look at it. Any number of threads may: passes take turns.
struct LoadedModel {
  // Opens a directory, or a packed file, which brings its tokenizer along. What ends a sequence is in
  // config().eos_ids: all that the configurations and the tokenizer name, and <|im_end|> where conversations are in
  // ChatML. Throws what load_checkpoint(), Tokenizer::load() and the executor's threads throw.
  explicit LoadedModel(const std::filesystem::path& path, const ModelOptions& options = {});
  // A model made by other means. The executor must outlive it.
  LoadedModel(Model model, const KernelTable& table, Executor& executor);

  const Model& model() const noexcept { return checkpoint.model; }
  const ModelConfig& config() const noexcept { return checkpoint.model.config; }
  // The tokenizer. Throws Error(kNotFound) if there is none.
  const Tokenizer& require_tokenizer() const;
  // Throws Error(kNotFound) if the model has no head, and so no logits.
  void require_head() const;
  // The style of conversations, and why. Throws what require_tokenizer() and choose_chat_style() throw.
  ChatStyleChoice chat_style() const;
  // The ids of a text to go on from: BOS where the tokenizer's files ask for it, then those of `text`. Throws what
  // require_tokenizer() throws.
  std::vector<TokenId> prompt(std::string_view text, SpecialTokens special = SpecialTokens::kAsText) const;

  std::filesystem::path path;                // empty: made by other means
  Checkpoint checkpoint;                     // its `notes` are the tokenizer's, too
  std::optional<Tokenizer> tokenizer;        // models without one work with ids
  std::optional<std::string> chat_template;  // Jinja, as the files have it
  KernelTable table;
  std::shared_ptr<Executor> executor;
  std::unique_ptr<TurnLock> turns = std::make_unique<TurnLock>();  // held during each pass of a session
};

// The tokenizer of a model whose weights need not be there. If there is a configuration, ids up to the model's
// vocab_size may be decoded. Throws what Tokenizer::load() throws.
Tokenizer open_tokenizer(const std::filesystem::path& path);

}  // namespace mixtral
