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

// All that are read below.
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
  const std::string_view scaling = file.text("llama.rope.scaling.type").value_or("none");
  require(scaling == "none", ErrorCode::kUnsupported, file.name(), ": llama.rope.scaling.type is ",
          json::quote(scaling), ", which is not supported");
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
  config.rope_theta = keys.number("rope.freq_base", 10000.0f, std::numeric_limits<float>::min());  // llama's
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
}

}  // namespace mixtral
