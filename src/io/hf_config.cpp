// Checks the members of config.json and translates them into ModelConfig.
#include "io/hf_config.hpp"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "core/json.hpp"
#include "io/catalog.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"

namespace mixtral {
namespace {

using json::ObjectReader;

constexpr Index kMaxConfigBytes = Index{1} << 20;
constexpr float kMinFloat = std::numeric_limits<float>::min(), kMaxFloat = std::numeric_limits<float>::max();

// The members of a scaled dictionary. transformers warns of others and goes on; but "attn_factor" or
// "extrapolation_factor", as the authors of yarn have them, ask for other numbers.
constexpr std::string_view kKnownOfRope[] = {"rope_type",        "type",
                                             "rope_theta",       "partial_rotary_factor",
                                             "factor",           "original_max_position_embeddings",
                                             "attention_factor", "mscale",
                                             "mscale_all_dim",   "beta_fast",
                                             "beta_slow",        "truncate",
                                             "finetuned"};

template <class... Parts>
void support(bool ok, const ObjectReader& json, const Parts&... problem) {
  if (!ok) fail(ErrorCode::kUnsupported, json.where(), ": ", problem...);
}

// The members that say: this is a Mixtral model, computed in the way this library does it.
void require_mixtral(const ObjectReader& json) {
  const std::string* type = json.optional_string("model_type");
  const json::Value* architectures = json.find("architectures");
  require(type != nullptr || architectures != nullptr, ErrorCode::kBadFormat, json.where(),
          ": neither model_type nor architectures is given");
  if (type != nullptr)
    support(*type == "mixtral", json, "model_type is ", json::quote(*type), ", expected \"mixtral\"");
  if (architectures != nullptr) {
    const json::Array* names = architectures->get<json::Array>();
    if (names == nullptr) json.fail_member("architectures", *architectures, "an array");
    const bool found = std::any_of(names->begin(), names->end(), [](const json::Value& name) {
      const auto* text = name.get<std::string>();
      return text != nullptr && (*text == "MixtralForCausalLM" || *text == "MixtralModel");
    });
    support(found, json, "architectures is [", names->empty() ? "" : json::describe(names->front()),
            "], expected [\"MixtralForCausalLM\"] or, without a head, [\"MixtralModel\"]");
  }
  const std::string* activation = json.optional_string("hidden_act");
  support(activation == nullptr || *activation == "silu", json, "hidden_act is ",
          json::quote(activation == nullptr ? "" : *activation), ", expected \"silu\"");
  for (const char* bias : {"attention_bias", "mlp_bias"}) {
    support(!json.boolean(bias, false), json, bias, " is true, biases are not supported");
  }
}

std::string read_quantization(const ObjectReader& json) {
  const std::optional<ObjectReader> quantized = json.optional_object("quantization_config");
  if (!quantized) return {};
  const std::string* method = quantized->optional_string("quant_method");
  return str("quantization_config: quant_method is ", method == nullptr ? "absent" : json::quote(*method));
}

// A member that is absent is what Hugging Face's MixtralConfig makes of it. One that is null is not absent: where null
// has a meaning there, it is read with optional_integer(), elsewhere it is refused.
Index integer_or(const ObjectReader& json, const char* key, Index fallback, Index least, Index most) {
  if (json.has(key)) return json.integer(key, least, most);
  require(fallback >= least && fallback <= most, ErrorCode::kBadFormat, json.where(), ": ", key,
          " is missing, which means ", fallback, ", expected an integer from ", least, " to ", most);
  return fallback;
}

// The original context length may stand in the dictionary or at the top; in neither, transformers takes the whole
// context.
std::optional<Index> read_original_max_positions(const ObjectReader& json, const ObjectReader& rope) {
  constexpr const char* kKey = "original_max_position_embeddings";
  const std::optional<Index> inner = rope.optional_integer(kKey, 1, Index{1} << 30),
                             outer = json.optional_integer(kKey, 1, Index{1} << 30);
  require(!inner || !outer || *inner == *outer, ErrorCode::kBadFormat, rope.where(), ": ", kKey, " is ",
          inner.value_or(0), ", elsewhere ", outer.value_or(0));
  return inner ? inner : outer;
}

// What transformers makes of it, which also uses mscale only beside mscale_all_dim, and neither where one is 0.
float read_attention_factor(const ObjectReader& rope, float factor) {
  if (const auto given = rope.optional_number("attention_factor", kMinFloat, kMaxFloat)) return *given;
  const auto of = [&](float mscale) {
    return yarn_attention_factor(static_cast<double>(factor), static_cast<double>(mscale));
  };
  const float mscale = rope.optional_number("mscale", 0, kMaxFloat).value_or(0),
              all_dim = rope.optional_number("mscale_all_dim", 0, kMaxFloat).value_or(0);
  return static_cast<float>(mscale > 0 && all_dim > 0 ? of(mscale) / of(all_dim) : of(1));
}

RopeScaling read_scaling(const ObjectReader& json, const ObjectReader& rope, RopeScaling::Kind kind,
                         Index max_positions) {
  RopeScaling scaling;
  if (kind == RopeScaling::Kind::kNone) return scaling;
  rope.require_known(kKnownOfRope);
  scaling.kind = kind;
  if (kind == RopeScaling::Kind::kLinear) {
    scaling.factor = rope.number("factor", kMinFloat, kMaxFloat);
    return scaling;
  }
  // Some releases of transformers 4 took the ratio of the contexts even where a factor is given; the others, vLLM and
  // the authors of yarn take the factor.
  const std::optional<Index> original = read_original_max_positions(json, rope);
  scaling.original_max_positions = original.value_or(max_positions);
  const auto ratio =
      static_cast<float>(static_cast<double>(max_positions) / static_cast<double>(scaling.original_max_positions));
  scaling.factor = original ? rope.optional_number("factor", kMinFloat, kMaxFloat).value_or(ratio)
                            : rope.number("factor", kMinFloat, kMaxFloat);
  scaling.attention_factor = read_attention_factor(rope, scaling.factor);
  scaling.beta_fast = rope.optional_number("beta_fast", kMinFloat, kMaxFloat).value_or(scaling.beta_fast);
  scaling.beta_slow = rope.optional_number("beta_slow", kMinFloat, kMaxFloat).value_or(scaling.beta_slow);
  scaling.truncate = rope.boolean("truncate", true);
  return scaling;
}

// Nothing if the dictionary does not say.
std::optional<RopeScaling::Kind> read_rope_type(const ObjectReader& rope) {
  using enum RopeScaling::Kind;
  std::optional<RopeScaling::Kind> kind;
  for (const char* key : {"rope_type", "type"}) {  // older files say type
    const std::string* type = rope.optional_string(key);
    if (type == nullptr) continue;
    support(*type == "default" || *type == name_of(kLinear) || *type == name_of(kYarn), rope, key, " is ",
            json::quote(*type), ", supported are \"default\", \"linear\" and \"yarn\"");
    const RopeScaling::Kind named = *type == "default" ? kNone : *type == name_of(kLinear) ? kLinear : kYarn;
    require(!kind || *kind == named, ErrorCode::kBadFormat, rope.where(), ": type is ", json::quote(*type),
            ", rope_type another");
    kind = named;
  }
  return kind;
}

// transformers 4 writes the base at the top and what scales it into rope_scaling, transformers 5 both into
// rope_parameters.
void read_rope(const ObjectReader& json, ModelConfig& config) {
  std::optional<float> theta = json.optional_number("rope_theta", kMinFloat, kMaxFloat);
  std::optional<RopeScaling> scaling;
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    const std::optional<ObjectReader> rope = json.optional_object(key);
    if (!rope) continue;
    const float partial = rope->optional_number("partial_rotary_factor", 0, 1).value_or(1);
    support(partial == 1, *rope, "partial_rotary_factor is ", partial, ", expected 1");
    if (const auto kind = read_rope_type(*rope)) {
      const RopeScaling inner = read_scaling(json, *rope, *kind, config.max_positions);
      require(!scaling || *scaling == inner, ErrorCode::kBadFormat, rope->where(),
              ": scales otherwise than rope_parameters");
      scaling = inner;
    }
    if (const auto inner = rope->optional_number("rope_theta", kMinFloat, kMaxFloat)) {
      require(!theta || *theta == *inner, ErrorCode::kBadFormat, rope->where(), ": rope_theta is ", *inner,
              ", elsewhere ", theta.value_or(0));
      theta = inner;
    }
  }
  config.rope_theta = theta.value_or(1e6f);  // the default of the original implementation
  config.rope_scaling = scaling.value_or(RopeScaling{});
}

Index read_n_experts(const ObjectReader& json) {
  constexpr Index kMost = 1 << 16;
  const std::optional<Index> local = json.optional_integer("num_local_experts", 1, kMost);
  const std::optional<Index> newer = json.optional_integer("num_experts", 1, kMost);
  if (!local && !newer) return integer_or(json, "num_local_experts", 8, 1, kMost);
  require(!local || !newer || *local == *newer, ErrorCode::kBadFormat, json.where(), ": num_local_experts is ",
          local.value_or(0), ", num_experts is ", newer.value_or(0));
  return local ? *local : *newer;
}

void read_heads(const ObjectReader& json, ModelConfig& config) {
  constexpr const char* kKvHeads = "num_key_value_heads";
  config.n_heads = integer_or(json, "num_attention_heads", 32, 1, 1 << 16);
  const bool as_many = json.has(kKvHeads) && json.find(kKvHeads) == nullptr;  // null
  config.n_kv_heads = as_many ? config.n_heads : integer_or(json, kKvHeads, 8, 1, config.n_heads);
  require(config.n_heads % config.n_kv_heads == 0, ErrorCode::kBadFormat, json.where(), ": num_attention_heads ",
          config.n_heads, " is not a multiple of num_key_value_heads ", config.n_kv_heads);
  const std::optional<Index> head_dim = json.optional_integer("head_dim", 2, 1 << 16);
  require(head_dim.has_value() || config.dim % config.n_heads == 0, ErrorCode::kBadFormat, json.where(),
          ": hidden_size ", config.dim, " is not a multiple of num_attention_heads ", config.n_heads,
          ", and head_dim is not given");
  config.head_dim = head_dim.value_or(config.dim / config.n_heads);
  require(config.head_dim % 2 == 0, ErrorCode::kBadFormat, json.where(), ": head_dim is ", config.head_dim,
          ", expected an even number: RoPE needs pairs");
}

// What ends a sequence is what any file says so.
void add_eos_ids(const ObjectReader& json, ModelConfig& config) {
  for (const Index number : json.integer_or_list("eos_token_id", 0, config.vocab_size - 1)) {
    const auto id = static_cast<TokenId>(number);
    std::vector<TokenId>& ids = config.eos_ids;
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
}

// Absent: 1 and 2, where the vocabulary has them. null: none.
void read_special_ids(const ObjectReader& json, ModelConfig& config) {
  const Index last = config.vocab_size - 1;
  config.bos_id = last < 1 ? -1 : 1;
  config.eos_ids = last < 2 ? std::vector<TokenId>{} : std::vector<TokenId>{2};
  if (json.has("bos_token_id"))
    config.bos_id = static_cast<TokenId>(json.optional_integer("bos_token_id", 0, last).value_or(-1));
  if (json.has("eos_token_id")) config.eos_ids.clear();
  add_eos_ids(json, config);
}

ModelConfig read_config(const ObjectReader& json) {
  using detail::kMaxDimension;
  require_mixtral(json);
  ModelConfig config;
  config.dim = integer_or(json, "hidden_size", 4096, 1, kMaxDimension);
  config.hidden_dim = integer_or(json, "intermediate_size", 14336, 1, kMaxDimension);
  config.n_layers = integer_or(json, "num_hidden_layers", 32, 1, 1 << 16);
  read_heads(json, config);
  config.n_experts = read_n_experts(json);
  config.n_experts_per_tok = integer_or(json, "num_experts_per_tok", 2, 1, config.n_experts);
  config.vocab_size = integer_or(json, "vocab_size", 32000, 1, kMaxDimension);
  config.max_positions = integer_or(json, "max_position_embeddings", 4096 * 32, 1, Index{1} << 30);
  config.sliding_window = json.optional_integer("sliding_window", 1, std::numeric_limits<Index>::max() / 2).value_or(0);
  config.norm_eps = json.has("rms_norm_eps") ? json.number("rms_norm_eps", 0, kMaxFloat) : 1e-5f;
  read_rope(json, config);
  config.tied_embeddings = json.boolean("tie_word_embeddings", false);
  read_special_ids(json, config);
  return config;
}

}  // namespace

HfConfig read_hf_config(const std::filesystem::path& dir) {
  const std::filesystem::path path = dir / "config.json";
  const json::Value value = json::parse_file(path, kMaxConfigBytes);
  const ObjectReader members(value, path.string());
  ModelConfig config = read_config(members);

  const std::filesystem::path generation_path = dir / "generation_config.json";
  if (may_exist(generation_path)) {
    const json::Value generation = json::parse_file(generation_path, kMaxConfigBytes);
    add_eos_ids(ObjectReader(generation, generation_path.string()), config);
  }
  require_valid(config, path.string());
  return {std::move(config), read_quantization(members)};
}

}  // namespace mixtral
