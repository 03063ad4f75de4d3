// Texts as vectors: the hidden rows of their tokens, and one vector for all of them.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "mixtral/core/scratch.hpp"
#include "mixtral/core/tensor.hpp"
#include "mixtral/model/transformer.hpp"
#include "mixtral/runtime/huge_pages.hpp"
#include "mixtral/runtime/loaded_model.hpp"
#include "mixtral/runtime/session.hpp"

namespace mixtral {

// Which of a token's hidden rows: what the head reads, after the last layer and the final norm. Others are numbers: 0
// is the token's embedding, l the residual stream behind l layers.
inline constexpr Index kFinalHidden = -1;

// How rows become one vector: their mean, or the last one, which has seen all tokens. Pinned: they cross the C ABI.
enum class Pooling { kMean = 1, kLast = 2 };
std::string_view name_of(Pooling pooling) noexcept;

// Reads texts without computing a logit: the head is never touched, and need not be there (ModelOptions::head). Rows
// are those that a session has, to the bit. The model must outlive it; one thread at a time uses it.
class Embedder {
 public:
  // Of the options, chunk and kv_dtype count. Throws Error(kInvalidArgument).
  explicit Embedder(const LoadedModel& model, const SessionOptions& options = {});

  // The hidden rows of a text from position 0, [tokens, dim]. Throws Error(kInvalidArgument) on a token outside the
  // vocabulary, on a layer that the model does not have and on no tokens, Error(kContextFull), std::bad_alloc, and what
  // the executor throws.
  Matrix<float> hidden(std::span<const TokenId> tokens, Index layer = kFinalHidden);
  // One vector [dim] of length 1 for the text: those rows, pooled. Throws as hidden().
  std::vector<float> embed(std::span<const TokenId> tokens, Pooling pooling = Pooling::kMean,
                           Index layer = kFinalHidden);

  // What hidden() would refuse, without computing anything.
  void require_text(std::span<const TokenId> tokens, Index layer = kFinalHidden) const;

 private:
  const LoadedModel& loaded_;
  Index chunk_;
  Scratch scratch_{huge_pages()};
  KvCache cache_;
  SlotId slot_;
  Forward forward_;
};

}  // namespace mixtral
