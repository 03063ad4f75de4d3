// Checks the members of params.json and translates them into ModelConfig, whose names are theirs.
#include "io/params.hpp"

#include <limits>
#include <optional>
#include <string_view>

#include "core/json.hpp"
#include "io/catalog.hpp"
#include "mixtral/core/error.hpp"

namespace mixtral {
namespace {

using json::ObjectReader;

constexpr Index kMaxParamsBytes = Index{1} << 20;
constexpr float kMinFloat = std::numeric_limits<float>::min(), kMaxFloat = std::numeric_limits<float>::max();

// All members that are read below, and those that only concern how the model is trained or served. Others may be
// adapters, a vision encoder, quantised weights, shared experts.
constexpr std::string_view kKnown[] = {"dim",        "n_layers",   "head_dim",        "hidden_dim",
                                       "n_heads",    "n_kv_heads", "norm_eps",        "vocab_size",
                                       "rope_theta", "moe",        "max_seq_len",     "max_position_embeddings",
                                       "yarn",       "model_type", "activation",      "sliding_window",
                                       "use_biases", "dtype",      "tied_embeddings", "max_batch_size"};
constexpr std::string_view kKnownOfMoe[] = {"num_experts", "num_experts_per_tok"};
constexpr std::string_view kKnownOfYarn[] = {"factor", "original_max_position_embeddings", "beta", "alpha",
                                             "apply_scale"};

// The members that say: this is a transformer of the kind that this library computes.
void require_mixtral(const ObjectReader& json) {
  const auto require_text = [&](const char* key, std::string_view expected) {
    const std::string* text = json.optional_string(key);
    require(text == nullptr || *text == expected, ErrorCode::kUnsupported, json.where(), ": ", key, " is ",
            json::quote(text == nullptr ? "" : *text), ", expected ", json::quote(expected));
  };
  require_text("model_type", "transformer");
  require_text("activation", "silu");
  for (const char* flag : {"use_biases", "tied_embeddings"}) {
    require(!json.boolean(flag, false), ErrorCode::kUnsupported, json.where(), ": ", flag,
            " is true, which is not supported");
  }
}

void read_heads(const ObjectReader& json, ModelConfig& config) {
  config.head_dim = json.integer("head_dim", 2, 1 << 16);
  require(config.head_dim % 2 == 0, ErrorCode::kBadFormat, json.where(), ": head_dim is ", config.head_dim,
          ", expected an even number: RoPE needs pairs");
  config.n_heads = json.integer("n_heads", 1, 1 << 16);
  config.n_kv_heads = json.integer("n_kv_heads", 1, config.n_heads);
  require(config.n_heads % config.n_kv_heads == 0, ErrorCode::kBadFormat, json.where(), ": n_heads ", config.n_heads,
          " is not a multiple of n_kv_heads ", config.n_kv_heads);
}

void read_moe(const ObjectReader& json, ModelConfig& config) {
  const std::optional<ObjectReader> moe = json.optional_object("moe");
  require(moe.has_value(), ErrorCode::kUnsupported, json.where(),
          ": moe is missing: a dense model, expected a mixture of experts");
  moe->require_known(kKnownOfMoe);
  config.n_experts = moe->integer("num_experts", 1, 1 << 16);
  config.n_experts_per_tok = moe->integer("num_experts_per_tok", 1, config.n_experts);
}

Index read_max_positions(const ObjectReader& json) {
  constexpr Index kMost = Index{1} << 30;
  const std::optional<Index> trained = json.optional_integer("max_position_embeddings", 1, kMost);
  const std::optional<Index> served = json.optional_integer("max_seq_len", 1, kMost);
  return trained ? *trained : served.value_or(32768);  // Mixtral 8x7B's
}

// Mistral's own inference code has no scaling; this is how vLLM reads the files that Mistral published for it. beta and
// alpha are the paper's names.
RopeScaling read_yarn(const ObjectReader& json) {
  const std::optional<ObjectReader> yarn = json.optional_object("yarn");
  RopeScaling scaling;
  if (!yarn) return scaling;
  yarn->require_known(kKnownOfYarn);
  scaling.kind = RopeScaling::Kind::kYarn;
  scaling.factor = yarn->number("factor", kMinFloat, kMaxFloat);
  scaling.original_max_positions = yarn->integer("original_max_position_embeddings", 1, Index{1} << 30);
  scaling.beta_fast = yarn->optional_number("beta", kMinFloat, kMaxFloat).value_or(scaling.beta_fast);
  scaling.beta_slow = yarn->optional_number("alpha", kMinFloat, kMaxFloat).value_or(scaling.beta_slow);
  if (yarn->boolean("apply_scale", true)) {
    scaling.attention_factor = static_cast<float>(yarn_attention_factor(static_cast<double>(scaling.factor)));
  }
  return scaling;
}

ModelConfig read_config(const ObjectReader& json) {
  using detail::kMaxDimension;
  constexpr TokenId kBos = 1, kEos = 2;  // of all of Mistral's SentencePiece vocabularies
  require_mixtral(json);
  ModelConfig config;
  config.dim = json.integer("dim", 1, kMaxDimension);
  config.hidden_dim = json.integer("hidden_dim", 1, kMaxDimension);
  config.n_layers = json.integer("n_layers", 1, 1 << 16);
  read_heads(json, config);
  read_moe(json, config);
  config.vocab_size = json.integer("vocab_size", kEos + 1, kMaxDimension);
  config.max_positions = read_max_positions(json);
  config.sliding_window = json.optional_integer("sliding_window", 1, std::numeric_limits<Index>::max() / 2).value_or(0);
  config.norm_eps = json.number("norm_eps", 0, kMaxFloat);
  // Mistral's own default where the file has none.
  config.rope_theta = json.optional_number("rope_theta", kMinFloat, kMaxFloat).value_or(1e6f);
  config.rope_scaling = read_yarn(json);
  config.rope_pairing = RopePairing::kInterleaved;
  config.bos_id = kBos;
  config.eos_ids = {kEos};
  return config;
}

}  // namespace

ModelConfig read_params(const std::filesystem::path& dir) {
  const std::filesystem::path path = dir / "params.json";
  const json::Value value = json::parse_file(path, kMaxParamsBytes);
  const ObjectReader reader(value, path.string());
  reader.require_known(kKnown);
  ModelConfig config = read_config(reader);
  require_valid(config, reader.where());
  return config;
}

}  // namespace mixtral
