// How Hugging Face checkpoints name a model's tensors.
#pragma once

#include <string>
#include <string_view>

#include "mixtral/model/weights.hpp"

namespace mixtral {

// The name of transformers 4: "model.layers.3.block_sparse_moe.experts.5.w1.weight".
std::string hf_name(const TensorSlot& slot);

// Where transformers 5 may keep the same numbers.
struct FusedName {
  std::string name;      // empty: this slot has no other name
  Index n_parts = 1;     // matrices of this slot's shape per expert: gate_up_proj holds 2
  Index part = 0;        // which of them; the gate projection comes first
  bool stacked = false;  // one tensor [n_experts, n_parts * rows, cols] for all experts of a layer
};
FusedName hf_fused_name(const TensorSlot& slot);

// Tensors that files carry although nothing reads them: RoPE frequencies, which are computed, and the head of
// a model whose head is the embedding.
bool hf_ignorable(std::string_view name, bool tied_embeddings) noexcept;

}  // namespace mixtral
