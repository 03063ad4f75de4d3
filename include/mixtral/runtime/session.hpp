// One sequence on one model: feed tokens, evaluate, read logits, go back.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "mixtral/core/executor.hpp"
#include "mixtral/core/scratch.hpp"
#include "mixtral/model/transformer.hpp"

namespace mixtral {

struct SessionOptions {
  Index max_positions = 0;  // room for this many tokens; 0: the model's max_positions
  Index chunk = 256;        // tokens per pass of a long prompt: bounds scratch memory, changes no result
};

// Receives the logits of positions first, first + 1, ...  [m, vocab_size]; valid during the call.
using LogitsSink = std::function<void(Index first, TensorView<const float, 2> logits)>;

// Model, table and executor must outlive it; the executor may be shared by sessions that take turns. A session
// is used by one thread at a time.
class Session {
 public:
  // Throws Error(kInvalidArgument).
  Session(const Model& model, const KernelTable& table, Executor& executor, SessionOptions options = {});

  // Queues tokens. Throws Error(kInvalidArgument) on an id outside the vocabulary, Error(kContextFull) if they
  // do not fit; then nothing has changed.
  void feed(std::span<const TokenId> tokens);
  void feed(TokenId token) { feed({&token, 1}); }

  // Computes all queued tokens. With `all_logits`, it receives the logits of each of them. Whatever is thrown,
  // the session is as before the call: the tokens are still queued.
  void eval(ForwardObserver* observer = nullptr, const LogitsSink& all_logits = {});

  // Logits of the last token that was computed, [vocab_size]; empty before the first.
  std::span<const float> logits() const noexcept { return logits_; }
  // All tokens: computed, then queued.
  std::span<const TokenId> tokens() const noexcept { return tokens_; }
  // How many are computed.
  Index length() const { return cache_.length(slot_); }
  Index max_positions() const noexcept { return max_positions_; }
  const Model& model() const noexcept { return model_; }

  // Forgets all tokens from position `length` on, queued ones too; the logits become empty. Throws
  // Error(kInvalidArgument) if there are fewer computed tokens.
  void truncate(Index length);

 private:
  void eval_chunk(Index begin, Index count, ForwardObserver* observer, const LogitsSink& all_logits);

  const Model& model_;
  const KernelTable& table_;
  Executor& executor_;
  Index max_positions_, chunk_;
  Scratch scratch_;
  KvCache cache_;
  SlotId slot_;
  Forward forward_;
  std::vector<TokenId> tokens_;
  std::vector<float> logits_, pending_logits_;
  std::vector<Index> positions_;  // of one chunk
  std::vector<SlotId> slots_;
};

}  // namespace mixtral
