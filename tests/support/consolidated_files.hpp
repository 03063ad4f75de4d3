// A Hugging Face checkpoint as Mistral would have published it: other names, q and k rows in another order.
#pragma once

#include <algorithm>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "support/checkpoint_files.hpp"

namespace mixtral::test {

inline std::string consolidated_name(std::string name) {
  static constexpr std::pair<std::string_view, std::string_view> kParts[] = {
      {"model.embed_tokens.", "tok_embeddings."},
      {"model.layers.", "layers."},
      {"model.norm.", "norm."},
      {"lm_head.", "output."},
      {".input_layernorm.", ".attention_norm."},
      {".post_attention_layernorm.", ".ffn_norm."},
      {".self_attn.q_proj.", ".attention.wq."},
      {".self_attn.k_proj.", ".attention.wk."},
      {".self_attn.v_proj.", ".attention.wv."},
      {".self_attn.o_proj.", ".attention.wo."},
      {".block_sparse_moe.", ".feed_forward."},
  };
  for (const auto& [from, to] : kParts) {
    const std::size_t at = name.find(from);
    if (at != std::string::npos) name.replace(at, from.size(), to);
  }
  return name;
}

// Of each head, rows i and i + head_dim / 2 become rows 2i and 2i + 1.
inline std::vector<std::byte> interleaved_rows(const SafetensorsEntry& entry, std::size_t head_dim) {
  const auto rows = static_cast<std::size_t>(entry.shape[0]);
  const std::size_t row_bytes = entry.data.size() / rows, half = head_dim / 2;
  std::vector<std::byte> out(entry.data.size());
  for (std::size_t r = 0; r < rows; ++r) {
    const std::size_t head = r / head_dim * head_dim, i = r % head_dim;
    const std::size_t to = head + (i < half ? 2 * i : 2 * (i - half) + 1);
    std::copy_n(entry.data.data() + r * row_bytes, row_bytes, out.data() + to * row_bytes);
  }
  return out;
}

inline nlohmann::json params_of(const nlohmann::json& config) {
  const int head_dim =
      config.value("head_dim", config.at("hidden_size").get<int>() / config.at("num_attention_heads").get<int>());
  nlohmann::json params = {
      {"dim", config.at("hidden_size")},
      {"n_layers", config.at("num_hidden_layers")},
      {"head_dim", head_dim},
      {"hidden_dim", config.at("intermediate_size")},
      {"n_heads", config.at("num_attention_heads")},
      {"n_kv_heads", config.at("num_key_value_heads")},
      {"norm_eps", config.at("rms_norm_eps")},
      {"vocab_size", config.at("vocab_size")},
      {"rope_theta", config.at("rope_theta")},
      {"max_seq_len", config.at("max_position_embeddings")},
      {"moe",
       {{"num_experts", config.at("num_local_experts")}, {"num_experts_per_tok", config.at("num_experts_per_tok")}}}};
  if (!config.at("sliding_window").is_null()) params["sliding_window"] = config.at("sliding_window");
  return params;
}

// params.json and consolidated.safetensors of the same model. Without `interleaved`, the rows of q and k stay as
// they are, which is wrong.
inline Files consolidated(const Files& hf, bool interleaved = true) {
  const nlohmann::json params = params_of(nlohmann::json::parse(hf.at("config.json")));
  std::deque<std::vector<std::byte>> reordered;
  std::deque<SafetensorsFile> sources;
  std::vector<SafetensorsEntry> tensors;
  for (const auto& [file, contents] : hf) {
    if (!file.ends_with(".safetensors")) continue;
    for (SafetensorsEntry entry : sources.emplace_back(std::as_bytes(std::span(contents)), file).entries()) {
      entry.name = consolidated_name(entry.name);
      if (interleaved && (entry.name.ends_with(".wq.weight") || entry.name.ends_with(".wk.weight")))
        entry.data = reordered.emplace_back(interleaved_rows(entry, params.at("head_dim").get<std::size_t>()));
      tensors.push_back(std::move(entry));
    }
  }
  return {{"params.json", params.dump(1)}, {"consolidated.safetensors", safetensors_text(tensors)}};
}

}  // namespace mixtral::test
