// The dimensions of a Mixtral-type model, in the words of the original checkpoint.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "mixtral/core/error.hpp"
#include "mixtral/core/types.hpp"
#include "mixtral/ops/rope_pairing.hpp"
#include "mixtral/ops/rope_scaling.hpp"

namespace mixtral {

struct ModelConfig {
  Index dim = 0;         // width of the residual stream
  Index hidden_dim = 0;  // width of an expert
  Index n_layers = 0;
  Index n_heads = 0;
  Index n_kv_heads = 0;
  Index head_dim = 0;
  Index n_experts = 0;
  Index n_experts_per_tok = 0;
  Index vocab_size = 0;
  Index max_positions = 0;   // the context length it was trained for
  Index sliding_window = 0;  // keys that a query sees, itself included; 0: all
  float norm_eps = 1e-5f;
  float rope_theta = 1e6f;
  RopePairing rope_pairing = RopePairing::kHalfSplit;
  RopeScaling rope_scaling = {};
  bool tied_embeddings = false;  // the head is the embedding matrix
  bool has_head = true;          // false: the model ends at the hidden rows, there are no logits
  TokenId bos_id = 1;            // -1: none
  std::vector<TokenId> eos_ids = {2};

  RopeFrequencies rope() const { return {head_dim, static_cast<double>(rope_theta), rope_scaling}; }

  // Whether the head is a matrix of its own.
  bool has_own_head() const noexcept { return has_head && !tied_embeddings; }
  // Throws Error(kInvalidArgument) that names the field and its value.
  void validate() const;
};

namespace detail {

// No dimension of a real model comes near it, and products of two stay far from overflow.
inline constexpr Index kMaxDimension = Index{1} << 28;

inline void require_dimension(const char* name, Index value, Index least = 1, Index most = kMaxDimension) {
  require(value >= least && value <= most, "config: ", name, " is ", value, ", expected ", least, " to ", most);
}

}  // namespace detail

inline void ModelConfig::validate() const {
  using detail::require_dimension;
  require_dimension("dim", dim);
  require_dimension("hidden_dim", hidden_dim);
  require_dimension("n_layers", n_layers, 1, 1 << 16);
  require_dimension("n_heads", n_heads, 1, 1 << 16);
  require_dimension("n_kv_heads", n_kv_heads, 1, n_heads);
  require(n_heads % n_kv_heads == 0, "config: n_heads ", n_heads, " is not a multiple of n_kv_heads ", n_kv_heads);
  require_dimension("head_dim", head_dim, 2, 1 << 16);
  require(head_dim % 2 == 0, "config: head_dim ", head_dim, " is odd, RoPE needs pairs");
  require_dimension("n_experts", n_experts, 1, 1 << 16);
  require_dimension("n_experts_per_tok", n_experts_per_tok, 1, n_experts);
  require_dimension("vocab_size", vocab_size);
  require_dimension("max_positions", max_positions, 1, Index{1} << 30);
  require_dimension("sliding_window", sliding_window, 0, std::numeric_limits<Index>::max() / 2);
  require(std::isfinite(norm_eps) && norm_eps >= 0, "config: norm_eps is ", norm_eps,
          ", expected a finite number >= 0");
  require(std::isfinite(rope_theta) && rope_theta > 0, "config: rope_theta is ", rope_theta,
          ", expected a finite number > 0");
  rope_scaling.validate(static_cast<double>(rope_theta));
  require(bos_id >= -1 && bos_id < vocab_size, "config: bos_id ", bos_id, " is outside the vocabulary of ", vocab_size);
  for (const TokenId id : eos_ids) {
    require(id >= 0 && id < vocab_size, "config: eos_id ", id, " is outside the vocabulary of ", vocab_size);
  }
}

}  // namespace mixtral
