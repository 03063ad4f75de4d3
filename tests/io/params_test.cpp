#include "io/params.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "mixtral/core/error.hpp"
#include "mixtral/model/weights.hpp"
#include "support/error_of.hpp"
#include "support/json_patch.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using nlohmann::json;
using test::error_of;
using test::names;
using test::TempDir;

namespace {

// Mixtral 8x7B's dimensions.
json base_params() {
  return json::parse(R"({
    "dim": 4096, "n_layers": 32, "head_dim": 128, "hidden_dim": 14336, "n_heads": 32, "n_kv_heads": 8,
    "norm_eps": 1e-05, "vocab_size": 32000, "moe": {"num_experts_per_tok": 2, "num_experts": 8}})");
}

ModelConfig read(const std::string& text) {
  const TempDir dir;
  test::write_text(dir / "params.json", text);
  return read_params(dir.path());
}
ModelConfig read_patched(const std::string& patch) { return read(test::patched(base_params(), patch).dump()); }

}  // namespace

TEST_CASE("params.json of Mixtral 8x7B gives its dimensions, and the format's defaults for the rest") {
  const ModelConfig c = read(base_params().dump());
  CHECK(c.dim == 4096);
  CHECK(c.n_layers == 32);
  CHECK(c.head_dim == 128);
  CHECK(c.hidden_dim == 14336);
  CHECK(c.n_heads == 32);
  CHECK(c.n_kv_heads == 8);
  CHECK(c.norm_eps == 1e-5f);
  CHECK(c.vocab_size == 32000);
  CHECK(c.n_experts == 8);
  CHECK(c.n_experts_per_tok == 2);
  CHECK(c.rope_theta == 1e6f);
  CHECK(c.rope_pairing == RopePairing::kInterleaved);
  CHECK(c.max_positions == 32768);
  CHECK(c.sliding_window == 0);
  CHECK_FALSE(c.tied_embeddings);
  CHECK(c.bos_id == 1);
  CHECK(c.eos_ids == std::vector<TokenId>{2});
  CHECK(count_parameters(c).total == 46'702'792'704);
}

TEST_CASE("what params.json says beyond the dimensions is obeyed, or harmless") {
  CHECK(read_patched(R"({"rope_theta": 10000.0})").rope_theta == 1e4f);
  CHECK(read_patched(R"({"rope_theta": null})").rope_theta == 1e6f);
  CHECK(read_patched(R"({"max_seq_len": 65536})").max_positions == 65536);
  CHECK(read_patched(R"({"max_position_embeddings": 4096, "max_seq_len": 65536})").max_positions == 4096);
  CHECK(read_patched(R"({"sliding_window": 4096})").sliding_window == 4096);
  CHECK(read_patched(R"({"sliding_window": null})").sliding_window == 0);
  CHECK(read_patched(R"({"head_dim": 64})").head_dim == 64);
  CHECK_NOTHROW(read_patched(R"({"model_type": "transformer", "activation": "silu", "use_biases": false,
                                 "tied_embeddings": false, "dtype": "bfloat16", "max_batch_size": 4, "lora": null,
                                 "quantization": null, "vision_encoder": null})"));
}

TEST_CASE("yarn of params.json has Mistral's names") {
  RopeScaling want{.kind = RopeScaling::Kind::kYarn,
                   .factor = 16,
                   .attention_factor = static_cast<float>(yarn_attention_factor(16)),
                   .original_max_positions = 16384};
  CHECK(read_patched(R"({"yarn": {"factor": 16, "original_max_position_embeddings": 16384}})").rope_scaling == want);
  want.beta_fast = 64;
  want.beta_slow = 2;
  want.attention_factor = 1;
  const ModelConfig c = read_patched(R"({"max_position_embeddings": 262144,
      "yarn": {"original_max_position_embeddings": 16384, "factor": 16, "apply_scale": false, "beta": 64, "alpha": 2}})");
  CHECK(c.rope_scaling == want);
  CHECK(c.max_positions == 262144);
  CHECK(read_patched(R"({"yarn": null})").rope_scaling == RopeScaling{});
}

TEST_CASE("values of params.json out of range are refused with the file, the key and the value") {
  const struct {
    std::string patch, message;
  } cases[] = {
      {R"({"dim": "-"})", "params.json: dim is missing"},
      {R"({"dim": "4096"})", "params.json: dim is \"4096\", expected an integer"},
      {R"({"dim": 268435457})", "dim is 268435457, expected"},
      {R"({"hidden_dim": 0})", "hidden_dim is 0, expected"},
      {R"({"n_layers": 65537})", "n_layers is 65537, expected an integer from 1 to 65536"},
      {R"({"head_dim": "-"})", "head_dim is missing"},
      {R"({"head_dim": 5})", "head_dim is 5, expected an even number"},
      {R"({"n_heads": -32})", "n_heads is -32, expected"},
      {R"({"n_heads": 30})", "n_heads 30 is not a multiple of n_kv_heads 8"},
      {R"({"n_kv_heads": 33})", "n_kv_heads is 33, expected an integer from 1 to 32"},
      {R"({"n_kv_heads": "-"})", "n_kv_heads is missing"},
      {R"({"norm_eps": "-"})", "norm_eps is missing"},
      {R"({"norm_eps": -1})", "norm_eps is -1, expected a number from 0"},
      {R"({"vocab_size": 2})", "vocab_size is 2, expected an integer from 3"},
      {R"({"rope_theta": 0})", "rope_theta is 0, expected a number from"},
      {R"({"yarn": []})", "params.json: yarn: an array, expected an object"},
      {R"({"yarn": {"factor": 4}})", "params.json: yarn: original_max_position_embeddings is missing"},
      {R"({"yarn": {"factor": 0, "original_max_position_embeddings": 4096}})", "yarn: factor is 0, expected a number"},
      {R"({"yarn": {"factor": 4, "original_max_position_embeddings": 4096, "alpha": 33}})",
       "params.json: rope_scaling: beta_fast is 32, beta_slow 33"},
      {R"({"max_seq_len": 0})", "max_seq_len is 0, expected an integer from 1"},
      {R"({"sliding_window": "4096"})", "sliding_window is \"4096\", expected an integer"},
      {R"({"use_biases": 0})", "use_biases is 0, expected true or false"},
      {R"({"moe": []})", "params.json: moe: an array, expected an object"},
      {R"({"moe": {"num_experts": 8}})", "params.json: moe: num_experts_per_tok is missing"},
      {R"({"moe": {"num_experts_per_tok": 2}})", "params.json: moe: num_experts is missing"},
      {R"({"moe": {"num_experts": 8, "num_experts_per_tok": 9}})", "moe: num_experts_per_tok is 9, expected"},
      {R"({"moe": {"num_experts": 65537, "num_experts_per_tok": 2}})", "moe: num_experts is 65537, expected"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.patch);
    const Error error = error_of([&] { read_patched(c.patch); });
    CHECK(error.code() == ErrorCode::kBadFormat);
    CHECK(names(error, c.message));
  }
}

TEST_CASE("members of params.json that would compute something else are unsupported, not ignored") {
  const struct {
    std::string patch, message;
  } cases[] = {
      {R"({"moe": "-"})", "params.json: moe is missing"},
      {R"({"moe": null})", "params.json: moe is missing"},
      {R"({"model_type": "mamba"})", "model_type is \"mamba\", expected \"transformer\""},
      {R"({"activation": "gelu"})", "activation is \"gelu\", expected \"silu\""},
      {R"({"use_biases": true})", "use_biases is true"},
      {R"({"tied_embeddings": true})", "tied_embeddings is true"},
      {R"({"quantization": {"qformat_weight": "fp8_e4m3"}})", "\"quantization\" is an object, which is not supported"},
      {R"({"lora": {"rank": 64, "scaling": 2.0}})", "\"lora\" is an object"},
      {R"({"vision_encoder": {}})", "\"vision_encoder\" is an object"},
      {R"({"yarn": {"factor": 4, "mscale": 1}})", "params.json: yarn: \"mscale\" is 1, which is not supported"},
      {R"({"llama_4_scaling": {"beta": 0.1}})", "\"llama_4_scaling\" is an object"},
      {R"({"causal": false})", "\"causal\" is false"},
      {R"({"moe": {"num_experts": 8, "num_experts_per_tok": 2, "num_shared_experts": 1}})",
       "params.json: moe: \"num_shared_experts\" is 1, which is not supported"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.patch);
    const Error error = error_of([&] { read_patched(c.patch); });
    CHECK(error.code() == ErrorCode::kUnsupported);
    CHECK(names(error, c.message));
  }
}

TEST_CASE("a params.json that is absent or no object is refused by its path") {
  const TempDir dir;
  CHECK(error_of([&] { read_params(dir.path()); }).code() == ErrorCode::kNotFound);
  for (const std::string text : {"", "[]", "{", "null", R"({"dim": 1, "dim": 2})"}) {
    CAPTURE(text);
    const Error error = error_of([&] { read(text); });
    CHECK(error.code() == ErrorCode::kBadFormat);
    CHECK(names(error, "params.json: "));
  }
}
