// One sequence on one model: feed tokens, evaluate, read logits, go back.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "mixtral/core/executor.hpp"
#include "mixtral/core/scratch.hpp"
#include "mixtral/model/transformer.hpp"
#include "mixtral/runtime/huge_pages.hpp"
#include "mixtral/runtime/loaded_model.hpp"

namespace mixtral {

struct SessionOptions {
  Index max_positions = 0;  // room for this many tokens; 0: the model's max_positions
  Index chunk = 512;        // tokens per pass of a long prompt: bounds scratch memory, changes no result
  // What keys and values are kept in: BF16; F32, twice the memory; I8, half of it, with a scale for each position and
  // head.
  DType kv_dtype = DType::kBF16;
};

// Of which fed tokens the logits are kept: the last one's always are.
enum class KeepLogits { kLast, kAll };

// Receives the logits of positions first, first + 1, ...  [m, vocab_size]; valid during the call.
using LogitsSink = std::function<void(Index first, TensorView<const float, 2> logits)>;

// The model must outlive it, where it is. A session is used by one thread at a time; the passes of all sessions of a
// model take turns.
class Session {
 public:
  // Throws Error(kInvalidArgument).
  explicit Session(const LoadedModel& model, SessionOptions options = {});

  // A second sequence that goes on from here on its own, on any thread: the same tokens, logits, keys and values. The
  // pages of these are shared; the last one, if it is not full, is copied by who goes on first.
  explicit Session(const Session& other);
  Session& operator=(const Session&) = delete;

  // Queues tokens. Throws Error(kInvalidArgument) on an id outside the vocabulary, Error(kContextFull) if they
  // do not fit, std::bad_alloc; then nothing has changed.
  void feed(std::span<const TokenId> tokens, KeepLogits keep = KeepLogits::kLast);
  void feed(TokenId token) { feed({&token, 1}); }

  // Makes the session's tokens exactly these: computed ones that are the same from the start are kept, the rest is
  // forgotten or queued. If all are kept but the last one's logits are gone, that one is queued again. Returns how many
  // are kept. Throws as feed().
  Index set_tokens(std::span<const TokenId> tokens);

  // After this, feeding up to n more tokens that are valid and fit cannot fail. Throws std::bad_alloc.
  void reserve(Index n);

  // Computes all queued tokens. With `all_logits`, it receives the logits of each of them. Whatever is thrown,
  // the session is as before the call: the tokens are still queued. Throws Error(kNotFound) if the model has no head,
  // Error(kBusy) from inside an eval, and in the child of a fork() if another thread was inside one at that time.
  void eval(const StepHooks& hooks = {}, const LogitsSink& all_logits = {});

  // Logits of the last computed token, [vocab_size]; empty before the first, and after truncate() took them.
  std::span<const float> logits() const noexcept { return logits(length() - 1); }
  // Logits of any token that the last eval computed and whose logits were to be kept; otherwise empty.
  std::span<const float> logits(Index position) const noexcept;
  // All tokens: computed, then queued.
  std::span<const TokenId> tokens() const noexcept { return tokens_; }
  // How many are computed.
  Index length() const noexcept { return length_; }
  Index max_positions() const noexcept { return max_positions_; }
  // Memory of keys and values that is held now, and how much of it other sessions hold, too.
  Index kv_bytes() const { return cache_.held_bytes(slot_) + cache_.free_bytes(); }
  Index kv_shared_bytes() const { return cache_.shared_bytes(slot_); }
  const Model& model() const noexcept { return loaded_.model(); }

  // Forgets all tokens from position `length` on, queued ones too, and their logits. Throws Error(kInvalidArgument)
  // if there are fewer computed tokens.
  void truncate(Index length);

 private:
  // Logits of some positions, in rising order.
  struct KeptLogits {
    std::vector<Index> positions;
    std::vector<float> logits;  // [positions.size(), vocab_size]
  };

  void require_tokens(std::span<const TokenId> tokens, Index before) const;
  void eval_chunk(Index begin, Index count, const StepHooks& hooks, const LogitsSink& all_logits);

  const LoadedModel& loaded_;
  Index max_positions_, chunk_;
  Scratch scratch_{huge_pages()};
  KvCache cache_;
  SlotId slot_;
  Forward forward_;
  std::vector<TokenId> tokens_;
  std::vector<std::uint8_t> keep_;  // as long as tokens_: whether a token's logits are wanted
  Index length_ = 0;                // computed tokens
  bool evaluating_ = false;         // inside eval()
  KeptLogits kept_, pending_;       // of the last eval; of the running one
  std::vector<Index> positions_;    // of one chunk
  std::vector<SlotId> slots_;
};

}  // namespace mixtral
