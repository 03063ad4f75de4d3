// The list of a model's tensors, and views on all of them.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/core/matrix_view.hpp"
#include "mixtral/core/tensor.hpp"
#include "mixtral/core/tensor_slot.hpp"
#include "mixtral/model/config.hpp"
#include "mixtral/moe/expert_ffn.hpp"

namespace mixtral {

// Tensors that usually share a format.
enum class TensorGroup { kEmbedding, kNorms, kAttention, kRouter, kExperts, kHead };

inline TensorGroup group_of(TensorKind kind) noexcept {
  using enum TensorKind;
  switch (kind) {
    case kEmbedding: return TensorGroup::kEmbedding;
    case kAttentionNorm:
    case kFfnNorm:
    case kFinalNorm: return TensorGroup::kNorms;
    case kWq:
    case kWk:
    case kWv:
    case kWo: return TensorGroup::kAttention;
    case kRouter: return TensorGroup::kRouter;
    case kW1:
    case kW2:
    case kW3: return TensorGroup::kExperts;
    default: return TensorGroup::kHead;
  }
}

inline std::string_view name_of(TensorGroup group) noexcept {
  static constexpr std::string_view kNames[] = {"embedding", "norms", "attention", "gate", "experts", "head"};
  return kNames[static_cast<int>(group)];
}

// Whether its kernels read packed weights.
inline bool may_be_packed(TensorGroup group) noexcept {
  return group == TensorGroup::kAttention || group == TensorGroup::kExperts || group == TensorGroup::kHead;
}

inline bool is_vector(TensorKind kind) noexcept { return group_of(kind) == TensorGroup::kNorms; }

// The shape of a tensor.
inline Shape<2> shape_of(const ModelConfig& c, TensorKind kind) noexcept {
  using enum TensorKind;
  switch (kind) {
    case kEmbedding:
    case kHead: return {{c.vocab_size, c.dim}};
    case kWq: return {{c.n_heads * c.head_dim, c.dim}};
    case kWk:
    case kWv: return {{c.n_kv_heads * c.head_dim, c.dim}};
    case kWo: return {{c.dim, c.n_heads * c.head_dim}};
    case kRouter: return {{c.n_experts, c.dim}};
    case kW1:
    case kW3: return {{c.hidden_dim, c.dim}};
    case kW2: return {{c.dim, c.hidden_dim}};
    default: return {{1, c.dim}};
  }
}

// Calls f(slot, Shape<2>) for every tensor of the model, in the order of the forward pass. The one list:
// loaders, packers, `inspect` and tests walk it.
template <class F>
void for_each_tensor(const ModelConfig& c, F&& f) {
  using enum TensorKind;
  const auto call = [&](TensorKind kind, Index layer = -1, Index expert = -1) {
    f(TensorSlot{kind, layer, expert}, shape_of(c, kind));
  };
  call(kEmbedding);
  for (Index l = 0; l < c.n_layers; ++l) {
    for (const TensorKind kind : {kAttentionNorm, kWq, kWk, kWv, kWo, kFfnNorm, kRouter}) call(kind, l);
    for (Index e = 0; e < c.n_experts; ++e) {
      for (const TensorKind kind : {kW1, kW2, kW3}) call(kind, l, e);
    }
  }
  call(kFinalNorm);
  if (c.has_own_head()) call(kHead);
}

// What an adapter adds to a layer's attention; null: nothing.
struct AttentionLowRank {
  const ops::LowRank* wq = nullptr;
  const ops::LowRank* wk = nullptr;
  const ops::LowRank* wv = nullptr;
  const ops::LowRank* wo = nullptr;
};

struct LayerWeights {
  MatrixView attention_norm, wq, wk, wv, wo, ffn_norm, router;
  AttentionLowRank low_rank;                // looked at
  std::vector<moe::ExpertWeights> experts;  // [n_experts]
};

// Views on all tensors of a model, together with whatever keeps the bytes alive: each expert has its own owner.
struct Weights {
  MatrixView embedding, final_norm, head;
  std::vector<LayerWeights> layers;     // [n_layers]
  std::shared_ptr<const void> storage;  // mapped files or memory of all that is no expert's

  // Room for the layers and experts of `config`; all views empty. Throws std::bad_alloc.
  explicit Weights(const ModelConfig& config) : layers(static_cast<std::size_t>(config.n_layers)) {
    for (LayerWeights& layer : layers) layer.experts.resize(static_cast<std::size_t>(config.n_experts));
  }
  Weights() = default;

  // Mapped files, or one piece of memory, that all weights are in.
  void own(const std::shared_ptr<const void>& all) noexcept {
    storage = all;
    for (LayerWeights& layer : layers) {
      for (moe::ExpertWeights& expert : layer.experts) expert.owner = all;
    }
  }

  MatrixView& at(const TensorSlot& slot) {
    using enum TensorKind;
    switch (slot.kind) {
      case kEmbedding: return embedding;
      case kFinalNorm: return final_norm;
      case kHead: return head;
      default: return at_layer(layers[static_cast<std::size_t>(slot.layer)], slot);
    }
  }

  const MatrixView& at(const TensorSlot& slot) const { return const_cast<Weights*>(this)->at(slot); }

 private:
  static MatrixView& at_layer(LayerWeights& layer, const TensorSlot& slot) {
    using enum TensorKind;
    switch (slot.kind) {
      case kAttentionNorm: return layer.attention_norm;
      case kWq: return layer.wq;
      case kWk: return layer.wk;
      case kWv: return layer.wv;
      case kWo: return layer.wo;
      case kFfnNorm: return layer.ffn_norm;
      case kRouter: return layer.router;
      case kW1: return layer.experts[static_cast<std::size_t>(slot.expert)].w1;
      case kW2: return layer.experts[static_cast<std::size_t>(slot.expert)].w2;
      default: return layer.experts[static_cast<std::size_t>(slot.expert)].w3;
    }
  }
};

struct Model {
  ModelConfig config;
  Weights weights;
};

// Bytes of all weights, each matrix its own share of what it is stored in.
inline Index weight_bytes(const Model& model) {
  Index sum = 0;
  for_each_tensor(model.config,
                  [&](const TensorSlot& slot, const Shape<2>&) { sum += model.weights.at(slot).bytes(); });
  return sum;
}

// Checks every view against the shape that the configuration asks for. Throws Error(kBadFormat) that names
// the tensor and both shapes.
inline void validate(const Weights& weights, const ModelConfig& config) {
  for_each_tensor(config, [&](const TensorSlot& slot, const Shape<2>& want) {
    const MatrixView& view = weights.at(slot);
    require(view.data != nullptr && view.rows == want[0] && view.cols == want[1], ErrorCode::kBadFormat,
            slot_name(slot), ": expected ", want, ", found [", view.rows, ", ", view.cols, "]");
  });
}

// Parameters of the model: all, and those that work on one token (all but the experts not chosen), as the
// model's makers count: 46.7 B and 12.9 B for Mixtral 8x7B.
struct ParameterCount {
  Index total = 0;
  Index active = 0;
};

inline ParameterCount count_parameters(const ModelConfig& config) {
  ParameterCount count;
  for_each_tensor(config, [&](const TensorSlot& slot, const Shape<2>& shape) {
    const Index n = shape.count();
    count.total += n;
    if (slot.expert < config.n_experts_per_tok) count.active += n;  // whichever are chosen, count the first
  });
  return count;
}

}  // namespace mixtral
