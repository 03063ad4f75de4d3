// The names of a model's tensors: plain data, for all that speaks of one of them.
#pragma once

#include <string>

#include "mixtral/core/error.hpp"
#include "mixtral/core/types.hpp"

namespace mixtral {

enum class TensorKind {
  kEmbedding,      // [vocab_size, dim]
  kAttentionNorm,  // [dim], as [1, dim]
  kWq,             // [n_heads * head_dim, dim]
  kWk,             // [n_kv_heads * head_dim, dim]
  kWv,             // [n_kv_heads * head_dim, dim]
  kWo,             // [dim, n_heads * head_dim]
  kFfnNorm,        // [dim], as [1, dim]
  kRouter,         // [n_experts, dim]; files call it "gate", as does slot_name(): a packed file names tensors by it
  kW1,             // [hidden_dim, dim]: gate projection of one expert
  kW2,             // [dim, hidden_dim]: down projection
  kW3,             // [hidden_dim, dim]: up projection
  kFinalNorm,      // [dim], as [1, dim]
  kHead,           // [vocab_size, dim]; only if ModelConfig::has_own_head()
};

// Where a tensor belongs. `layer` and `expert` are -1 where they have no meaning.
struct TensorSlot {
  TensorKind kind;
  Index layer = -1;
  Index expert = -1;

  bool operator==(const TensorSlot&) const = default;
};

// "layers.3.experts.5.w1": the library's own name, in messages and packed files.
inline std::string slot_name(const TensorSlot& slot) {
  static constexpr const char* kNames[] = {"embedding", "attention_norm", "wq",   "wk", "wv",
                                           "wo",        "ffn_norm",       "gate", "w1", "w2",
                                           "w3",        "final_norm",     "head"};
  const char* name = kNames[static_cast<int>(slot.kind)];
  if (slot.layer < 0) return name;
  if (slot.expert < 0) return str("layers.", slot.layer, ".", name);
  return str("layers.", slot.layer, ".experts.", slot.expert, ".", name);
}

}  // namespace mixtral
