#include "io/gguf_config.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/json.hpp"
#include "mixtral/core/error.hpp"

namespace mixtral {
namespace {

using detail::kMaxDimension;

constexpr std::string_view kPrefix = "llama.";
constexpr Index kMostTokens = Index{1} << 30;
constexpr float kMinFloat = std::numeric_limits<float>::min();

// All that are read below, and rope.scaling.finetuned, which changes nothing.
constexpr std::string_view kKnown[] = {"context_length",
                                       "embedding_length",
                                       "block_count",
                                       "feed_forward_length",
                                       "attention.head_count",
                                       "attention.head_count_kv",
                                       "attention.layer_norm_rms_epsilon",
                                       "attention.key_length",
                                       "attention.value_length",
                                       "attention.sliding_window",
                                       "rope.dimension_count",
                                       "rope.freq_base",
                                       "rope.scaling.type",
                                       "rope.scaling.factor",
                                       "rope.scaling.attn_factor",
                                       "rope.scaling.original_context_length",
                                       "rope.scaling.finetuned",
                                       "rope.scaling.yarn_beta_fast",
                                       "rope.scaling.yarn_beta_slow",
                                       "expert_count",
                                       "expert_used_count",
                                       "vocab_size"};

// A key nobody here knows may ask for another computation.
void require_known(const GgufFile& file) {
  for (const GgufKey& key : file.keys()) {
    if (!key.name.starts_with(kPrefix)) continue;
    const std::string_view name = key.name.substr(kPrefix.size());
    require(std::find(std::begin(kKnown), std::end(kKnown), name) != std::end(kKnown), ErrorCode::kUnsupported,
            file.name(), ": ", json::quote(key.name), " is not supported");
  }
}

void require_mixtral(const GgufFile& file) {
  const auto architecture = file.text("general.architecture");
  require(architecture.has_value(), ErrorCode::kBadFormat, file.name(), ": no general.architecture");
  require(*architecture == "llama", ErrorCode::kUnsupported, file.name(), ": general.architecture is ",
          json::quote(*architecture), ", supported is \"llama\" with experts, as Mixtral's files have it");
  require(file.find_key("llama.expert_count") != nullptr, ErrorCode::kUnsupported, file.name(),
          ": no llama.expert_count: a dense model, expected a mixture of experts");
  require_known(file);
}

class Keys {
 public:
  explicit Keys(const GgufFile& file) : file_(file) {}

  Index integer(std::string_view name, Index least, Index most) const {
    const std::string key = str(kPrefix, name);
    const std::optional<Index> value = file_.integer(key, least, most);
    require(value.has_value(), ErrorCode::kBadFormat, file_.name(), ": no ", key);
    return *value;
  }
  std::optional<Index> optional_integer(std::string_view name, Index least, Index most) const {
    return file_.integer(str(kPrefix, name), least, most);
  }
  float number(std::string_view name, std::optional<float> otherwise, float least) const {
    const std::string key = str(kPrefix, name);
    const std::optional<double> value = file_.number(key);
    if (!value && otherwise) return *otherwise;
    require(value.has_value(), ErrorCode::kBadFormat, file_.name(), ": no ", key);
    require(*value >= least && *value <= std::numeric_limits<float>::max(), ErrorCode::kBadFormat, file_.name(), ": ",
            key, " is ", *value, ", expected a finite number of at least ", least);
    return static_cast<float>(*value);
  }

 private:
  const GgufFile& file_;
};

void read_heads(const GgufFile& file, const Keys& keys, ModelConfig& config) {
  config.n_heads = keys.integer("attention.head_count", 1, 1 << 16);
  config.n_kv_heads = keys.optional_integer("attention.head_count_kv", 1, config.n_heads).value_or(config.n_heads);
  require(config.n_heads % config.n_kv_heads == 0, ErrorCode::kBadFormat, file.name(),
          ": llama.attention.head_count is ", config.n_heads, ", no multiple of llama.attention.head_count_kv, ",
          config.n_kv_heads);
  const auto own = keys.optional_integer("attention.key_length", 2, 1 << 16);
  require(own.has_value() || config.dim % config.n_heads == 0, ErrorCode::kBadFormat, file.name(),
          ": llama.embedding_length ", config.dim, " is no multiple of llama.attention.head_count ", config.n_heads);
  config.head_dim = own.value_or(config.dim / config.n_heads);
  require(config.head_dim >= 2 && config.head_dim % 2 == 0, ErrorCode::kBadFormat, file.name(), ": heads of ",
          config.head_dim, ", expected an even number: RoPE needs pairs");
  for (const char* same : {"attention.value_length", "rope.dimension_count"}) {
    const Index value = keys.optional_integer(same, 1, 1 << 16).value_or(config.head_dim);
    require(value == config.head_dim, ErrorCode::kUnsupported, file.name(), ": ", kPrefix, same, " is ", value,
            ", expected that of the keys, ", config.head_dim);
  }
}

// As llama.cpp reads them: no type means linear, no factor or 0 means 1, no original context the whole one, and
// attn_factor multiplies cos and sin whatever the type, on top of yarn's own.
RopeScaling read_rope_scaling(const GgufFile& file, const Keys& keys, Index max_positions) {
  using enum RopeScaling::Kind;
  const std::string_view type = file.text("llama.rope.scaling.type").value_or(name_of(kLinear));
  require(type == name_of(kNone) || type == name_of(kLinear) || type == name_of(kYarn), ErrorCode::kUnsupported,
          file.name(), ": llama.rope.scaling.type is ", json::quote(type), ", supported are ", name_of(kNone), ", ",
          name_of(kLinear), " and ", name_of(kYarn));
  RopeScaling s;
  const float factor = keys.number("rope.scaling.factor", 0.0f, 0);
  require(factor == 0 || factor >= kMinFloat, ErrorCode::kBadFormat, file.name(), ": llama.rope.scaling.factor is ",
          factor, ", expected 0 or at least ", kMinFloat);
  if (type != name_of(kNone) && factor != 0) s.factor = factor;
  s.attention_factor = keys.number("rope.scaling.attn_factor", 1.0f, kMinFloat);
  if (type == name_of(kYarn)) {
    s.kind = kYarn;
    s.attention_factor *= static_cast<float>(yarn_attention_factor(static_cast<double>(s.factor)));
    s.original_max_positions =
        keys.optional_integer("rope.scaling.original_context_length", 1, kMostTokens).value_or(max_positions);
    s.beta_fast = keys.number("rope.scaling.yarn_beta_fast", s.beta_fast, kMinFloat);
    s.beta_slow = keys.number("rope.scaling.yarn_beta_slow", s.beta_slow, kMinFloat);
  } else if (s.factor != 1 || s.attention_factor != 1) {
    s.kind = kLinear;
  }
  return s;
}

// The ends of a sequence: of a text, of a turn, of a message for a tool.
std::vector<TokenId> read_ends(const GgufFile& file) {
  std::vector<TokenId> ids;
  for (const char* name : {"eos", "eot", "eom"}) {
    const auto id = file.integer(str("tokenizer.ggml.", name, "_token_id"), 0, kMaxDimension);
    if (id && std::find(ids.begin(), ids.end(), *id) == ids.end()) ids.push_back(static_cast<TokenId>(*id));
  }
  if (ids.empty()) ids.push_back(2);  // as in all vocabularies of this family
  return ids;
}

// What read_rope_scaling() makes the same of.
void add_rope_scaling(const RopeScaling& s, GgufKeys& keys) {
  using enum RopeScaling::Kind;
  if (s.kind == kNone) return;
  require(s.kind != kYarn || s.truncate, ErrorCode::kUnsupported,
          "rope_scaling: a ramp that is not truncated to whole pairs has no keys in a GGUF file");
  const auto number = [&](std::string_view name, float value) { keys.number(str(kPrefix, name), value); };
  keys.text(str(kPrefix, "rope.scaling.type"), name_of(s.kind));
  number("rope.scaling.factor", s.factor);
  float more = s.attention_factor;
  if (s.kind == kYarn) {
    const auto own = static_cast<float>(yarn_attention_factor(static_cast<double>(s.factor)));
    more /= own;
    for (const float to : {0.0f, 10 * more}) {  // a quotient may be one step beside the factor that gives it back
      const float beside = std::nextafter(s.attention_factor / own, to);
      if (more * own != s.attention_factor && beside * own == s.attention_factor) more = beside;
    }
    keys.integer(str(kPrefix, "rope.scaling.original_context_length"), s.original_max_positions);
    number("rope.scaling.yarn_beta_fast", s.beta_fast);
    number("rope.scaling.yarn_beta_slow", s.beta_slow);
  }
  if (more != 1) number("rope.scaling.attn_factor", more);
}

}  // namespace

ModelConfig read_gguf_config(const GgufFile& file) {
  require_mixtral(file);
  const Keys keys(file);
  ModelConfig config;
  config.dim = keys.integer("embedding_length", 1, kMaxDimension);
  config.hidden_dim = keys.integer("feed_forward_length", 1, kMaxDimension);
  config.n_layers = keys.integer("block_count", 1, 1 << 16);
  read_heads(file, keys, config);
  config.n_experts = keys.integer("expert_count", 1, 1 << 16);
  config.n_experts_per_tok = keys.integer("expert_used_count", 1, config.n_experts);
  config.max_positions = keys.integer("context_length", 1, kMostTokens);
  config.sliding_window = keys.optional_integer("attention.sliding_window", 0, kMostTokens).value_or(0);
  config.norm_eps = keys.number("attention.layer_norm_rms_epsilon", {}, 0);
  config.rope_theta = keys.number("rope.freq_base", 10000.0f, kMinFloat);  // llama's
  config.rope_scaling = read_rope_scaling(file, keys, config.max_positions);
  config.rope_pairing = RopePairing::kInterleaved;
  config.bos_id = static_cast<TokenId>(file.integer("tokenizer.ggml.bos_token_id", 0, kMaxDimension).value_or(1));
  config.eos_ids = read_ends(file);
  return config;
}

void add_gguf_config(const ModelConfig& c, GgufKeys& keys) {
  const auto integer = [&](std::string_view name, Index value) { keys.integer(str(kPrefix, name), value); };
  const auto number = [&](std::string_view name, float value) { keys.number(str(kPrefix, name), value); };
  integer("vocab_size", c.vocab_size);
  integer("context_length", c.max_positions);
  integer("embedding_length", c.dim);
  integer("block_count", c.n_layers);
  integer("feed_forward_length", c.hidden_dim);
  integer("attention.head_count", c.n_heads);
  integer("attention.head_count_kv", c.n_kv_heads);
  integer("attention.key_length", c.head_dim);
  integer("attention.value_length", c.head_dim);
  if (c.sliding_window > 0) integer("attention.sliding_window", c.sliding_window);
  number("attention.layer_norm_rms_epsilon", c.norm_eps);
  integer("rope.dimension_count", c.head_dim);
  number("rope.freq_base", c.rope_theta);
  integer("expert_count", c.n_experts);
  integer("expert_used_count", c.n_experts_per_tok);
  add_rope_scaling(c.rope_scaling, keys);
}

}  // namespace mixtral
