// The names of both generations of checkpoints.
#include "io/hf_names.hpp"

namespace mixtral {

std::string hf_name(const TensorSlot& slot) {
  using enum TensorKind;
  const std::string layer = str("model.layers.", slot.layer, ".");
  const auto expert = [&](const char* w) {
    return str(layer, "block_sparse_moe.experts.", slot.expert, ".", w, ".weight");
  };
  switch (slot.kind) {
    case kEmbedding: return "model.embed_tokens.weight";
    case kAttentionNorm: return layer + "input_layernorm.weight";
    case kWq: return layer + "self_attn.q_proj.weight";
    case kWk: return layer + "self_attn.k_proj.weight";
    case kWv: return layer + "self_attn.v_proj.weight";
    case kWo: return layer + "self_attn.o_proj.weight";
    case kFfnNorm: return layer + "post_attention_layernorm.weight";
    case kRouter: return layer + "block_sparse_moe.gate.weight";
    case kW1: return expert("w1");
    case kW2: return expert("w2");
    case kW3: return expert("w3");
    case kFinalNorm: return "model.norm.weight";
    case kHead: return "lm_head.weight";
  }
  return {};
}

FusedName hf_fused_name(const TensorSlot& slot) {
  const std::string mlp = str("model.layers.", slot.layer, ".mlp.");
  switch (slot.kind) {
    case TensorKind::kRouter: return {mlp + "gate.weight"};
    case TensorKind::kW1: return {mlp + "experts.gate_up_proj", 2, 0, true};
    case TensorKind::kW3: return {mlp + "experts.gate_up_proj", 2, 1, true};
    case TensorKind::kW2: return {mlp + "experts.down_proj", 1, 0, true};
    default: return {};
  }
}

bool hf_ignorable(std::string_view name, bool tied_embeddings) noexcept {
  return name.ends_with("rotary_emb.inv_freq") || (tied_embeddings && name == "lm_head.weight");
}

}  // namespace mixtral
