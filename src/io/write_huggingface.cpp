#include "mixtral/io/write_huggingface.hpp"

#include <nlohmann/json.hpp>

#include "io/hf_names.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/io/safetensors.hpp"

namespace mixtral {
namespace {

nlohmann::json config_json(const ModelConfig& c) {
  using Json = nlohmann::json;
  return {{"architectures", {"MixtralForCausalLM"}},
          {"model_type", "mixtral"},
          {"hidden_act", "silu"},
          {"hidden_size", c.dim},
          {"intermediate_size", c.hidden_dim},
          {"num_hidden_layers", c.n_layers},
          {"num_attention_heads", c.n_heads},
          {"num_key_value_heads", c.n_kv_heads},
          {"head_dim", c.head_dim},
          {"num_local_experts", c.n_experts},
          {"num_experts_per_tok", c.n_experts_per_tok},
          {"vocab_size", c.vocab_size},
          {"max_position_embeddings", c.max_positions},
          {"rms_norm_eps", c.norm_eps},
          {"rope_theta", c.rope_theta},
          {"sliding_window", c.sliding_window > 0 ? Json(c.sliding_window) : Json()},
          {"tie_word_embeddings", c.tied_embeddings},
          {"bos_token_id", c.bos_id >= 0 ? Json(c.bos_id) : Json()},
          {"eos_token_id", c.eos_ids}};
}

nlohmann::json scaling_json(const RopeScaling& s) {
  nlohmann::json out = {{"rope_type", name_of(s.kind)}, {"factor", s.factor}};
  if (s.kind == RopeScaling::Kind::kYarn) {
    out.update({{"original_max_position_embeddings", s.original_max_positions},
                {"attention_factor", s.attention_factor},
                {"beta_fast", s.beta_fast},
                {"beta_slow", s.beta_slow},
                {"truncate", s.truncate}});
  }
  return out;
}

}  // namespace

void write_huggingface(const std::filesystem::path& dir, const ModelConfig& config, const Weights& weights) {
  require(config.rope_pairing == RopePairing::kHalfSplit, ErrorCode::kUnsupported, dir.string(),
          ": Hugging Face checkpoints rotate halves, this model rotates neighbours");
  const RopeScaling& scaling = config.rope_scaling;
  require(scaling.kind != RopeScaling::Kind::kLinear || scaling.attention_factor == 1, ErrorCode::kUnsupported,
          dir.string(), ": rope_scaling is linear with an attention_factor of ", scaling.attention_factor,
          ", which Hugging Face checkpoints have with yarn only");
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  require(!error, ErrorCode::kIo, dir.string(), ": cannot create the directory: ", error.message());

  std::vector<SafetensorsEntry> tensors;
  for_each_tensor(config, [&](const TensorSlot& slot, const Shape<2>& shape) {
    const MatrixView& w = weights.at(slot);
    require(w.row_bytes == w.cols * size_of(w.dtype), slot_name(slot), ": rows are ", w.row_bytes,
            " bytes apart, not dense");
    std::vector<Index> dims(shape.dims.begin() + (is_vector(slot.kind) ? 1 : 0), shape.dims.end());
    tensors.push_back({hf_name(slot), w.dtype, std::move(dims), {w.data, static_cast<std::size_t>(w.bytes())}});
  });
  write_safetensors(dir / "model.safetensors", tensors, {{"format", "pt"}});

  nlohmann::json json = config_json(config);
  if (scaling.kind != RopeScaling::Kind::kNone) json["rope_scaling"] = scaling_json(scaling);
  const std::string text = json.dump(2) + "\n";
  AtomicFileWriter file(dir / "config.json");
  file.write(std::as_bytes(std::span(text)));
  file.commit();
}

}  // namespace mixtral
