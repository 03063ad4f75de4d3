#include "io/hf_config.hpp"

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

// Mixtral 8x7B's own.
json base_config() {
  return json::parse(R"({
    "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_act": "silu",
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2,
    "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": null, "max_position_embeddings": 32768,
    "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"})");
}

ModelConfig read(const json& config, const std::string& generation = "") {
  const TempDir dir;
  test::write_text(dir / "config.json", config.dump());
  if (!generation.empty()) test::write_text(dir / "generation_config.json", generation);
  return read_hf_config(dir.path()).model;
}

json patched(const std::string& patch) { return test::patched(base_config(), patch); }

}  // namespace

TEST_CASE("Mixtral 8x7B's config gives its dimensions and 46.7 B parameters, 12.9 B of them active") {
  const ModelConfig c = read(base_config());
  CHECK(c.dim == 4096);
  CHECK(c.hidden_dim == 14336);
  CHECK(c.n_layers == 32);
  CHECK(c.head_dim == 128);
  CHECK(c.max_positions == 32768);
  CHECK(count_parameters(c).total == 46'702'792'704);
  CHECK(count_parameters(c).active == 12'879'925'248);
}

TEST_CASE("every spelling of the same config is understood") {
  CHECK(read(patched(R"({"head_dim":64})")).head_dim == 64);
  CHECK(read(patched(R"({"head_dim":null})")).head_dim == 128);
  CHECK(read(patched(R"({"num_local_experts":"-","num_experts":16})")).n_experts == 16);
  CHECK(read(patched(R"({"num_key_value_heads":null})")).n_kv_heads == 32);
  CHECK(read(patched(R"({"sliding_window":4096})")).sliding_window == 4096);
  CHECK(read(patched(R"({"tie_word_embeddings":true})")).tied_embeddings);
  CHECK(read(patched(R"({"model_type":"-"})")).dim == 4096);
  CHECK(read(patched(R"({"architectures":"-"})")).dim == 4096);
  CHECK(read(patched(R"({"architectures":["MixtralModel"]})")).dim == 4096);
  CHECK(read(patched(R"({"rope_theta":"-"})")).rope_theta == 1e6f);
  CHECK(read(patched(R"({"rope_theta":10000})")).rope_theta == 1e4f);
  CHECK(read(patched(R"({"rope_theta":"-","rope_parameters":{"rope_theta":5e5,"rope_type":"default"}})")).rope_theta ==
        5e5f);
  CHECK(read(patched(R"({"rope_scaling":null,"rope_parameters":{"rope_theta":1e6}})")).rope_theta == 1e6f);
  CHECK(read(patched(R"({"bos_token_id":null})")).bos_id == -1);
  CHECK(read(patched(R"({"eos_token_id":null})")).eos_ids.empty());
  CHECK(read(patched(R"({"eos_token_id":[2,32]})")).eos_ids == std::vector<TokenId>{2, 32});
}

TEST_CASE("scaled RoPE is read from both places, with what transformers makes of absent members") {
  using Kind = RopeScaling::Kind;
  const auto scaling = [](const std::string& patch) { return read(patched(patch)).rope_scaling; };
  CHECK(scaling("{}") == RopeScaling{});
  CHECK(scaling(R"({"rope_scaling":{"type":"default","factor":4}})") == RopeScaling{});

  const RopeScaling linear{.kind = Kind::kLinear, .factor = 4};
  CHECK(scaling(R"({"rope_scaling":{"type":"linear","factor":4.0}})") == linear);
  CHECK(scaling(R"({"rope_scaling":{"rope_type":"linear","type":"linear","factor":4}})") == linear);
  CHECK(scaling(R"({"rope_theta":"-","rope_parameters":{"rope_type":"linear","factor":4,"rope_theta":1e6}})") ==
        linear);
  CHECK(scaling(R"({"rope_scaling":{"type":"linear","factor":4},"rope_parameters":{"rope_theta":1e6}})") == linear);

  RopeScaling yarn{.kind = Kind::kYarn,
                   .factor = 4,
                   .attention_factor = static_cast<float>(yarn_attention_factor(4)),
                   .original_max_positions = 8192};
  const std::string original = R"("original_max_position_embeddings":8192)";
  CHECK(scaling(R"({"rope_scaling":{"type":"yarn","factor":4,"finetuned":true,)" + original + "}}") == yarn);
  CHECK(scaling(R"({"rope_parameters":{"rope_type":"yarn","factor":4.0,)" + original + "}}") == yarn);
  CHECK(scaling(R"({"rope_scaling":{"type":"yarn","factor":4},)" + original + "}") == yarn);
  CHECK(scaling(R"({"rope_scaling":{"type":"yarn",)" + original + "}}") == yarn);  // 32768 / 8192
  CHECK(scaling(R"({"rope_scaling":{"type":"yarn","factor":4,"mscale":0.7,)" + original + "}}") == yarn);
  CHECK(scaling(R"({"rope_scaling":{"type":"yarn","factor":4,"mscale":0.7,"mscale_all_dim":0,)" + original + "}}") ==
        yarn);
  yarn.attention_factor = static_cast<float>(yarn_attention_factor(4, 2) / yarn_attention_factor(4, 0.5));
  CHECK(scaling(R"({"rope_scaling":{"type":"yarn","factor":4,"mscale":2,"mscale_all_dim":0.5,)" + original + "}}") ==
        yarn);
  yarn.attention_factor = 1.5f;
  yarn.beta_fast = 16;
  yarn.beta_slow = 2;
  yarn.truncate = false;
  CHECK(scaling(R"({"rope_scaling":{"type":"yarn","factor":4,"attention_factor":1.5,"mscale":2,"mscale_all_dim":1,
                    "beta_fast":16,"beta_slow":2.0,"truncate":false,)" +
                original + "}}") == yarn);

  const ModelConfig whole = read(patched(R"({"rope_scaling":{"type":"yarn","factor":2}})"));
  CHECK(whole.rope_scaling.original_max_positions == 32768);
  CHECK(whole.rope_scaling.factor == 2);
  CHECK(whole.max_positions == 32768);
}

TEST_CASE("a config that says nothing is Hugging Face's MixtralConfig") {
  const ModelConfig c = read(json::parse(R"({"model_type": "mixtral"})"));
  CHECK(c.vocab_size == 32000);
  CHECK(c.dim == 4096);
  CHECK(c.hidden_dim == 14336);
  CHECK(c.n_layers == 32);
  CHECK(c.n_heads == 32);
  CHECK(c.n_kv_heads == 8);
  CHECK(c.head_dim == 128);
  CHECK(c.n_experts == 8);
  CHECK(c.n_experts_per_tok == 2);
  CHECK(c.max_positions == 131072);
  CHECK(c.sliding_window == 0);
  CHECK(c.norm_eps == 1e-5f);
  CHECK(c.rope_theta == 1e6f);
  CHECK(!c.tied_embeddings);
  CHECK(c.bos_id == 1);
  CHECK(c.eos_ids == std::vector<TokenId>{2});
}

TEST_CASE("a member that is absent has the default, where that can be, and one that is null has not") {
  CHECK(read(patched(R"({"num_key_value_heads":"-","num_attention_heads":16})")).n_kv_heads == 8);
  CHECK(read(patched(R"({"num_key_value_heads":null,"num_attention_heads":16})")).n_kv_heads == 16);
  CHECK(read(patched(R"({"num_experts_per_tok":"-"})")).n_experts_per_tok == 2);
  CHECK(read(patched(R"({"bos_token_id":"-","eos_token_id":"-","vocab_size":2})")).bos_id == 1);
  CHECK(read(patched(R"({"bos_token_id":"-","eos_token_id":"-","vocab_size":2})")).eos_ids.empty());
  CHECK(read(patched(R"({"bos_token_id":"-","eos_token_id":"-","vocab_size":1})")).bos_id == -1);
  const struct {
    std::string patch, message;
  } cases[] = {
      {R"({"num_key_value_heads":"-","num_attention_heads":4})",
       "num_key_value_heads is missing, which means 8, expected an integer from 1 to 4"},
      {R"({"num_key_value_heads":"-","num_attention_heads":12})",
       "num_attention_heads 12 is not a multiple of num_key_value_heads 8"},
      {R"({"num_experts_per_tok":"-","num_local_experts":1})",
       "num_experts_per_tok is missing, which means 2, expected an integer from 1 to 1"},
      {R"({"hidden_size":null})", "config.json: hidden_size is null"},
      {R"({"num_experts_per_tok":null})", "config.json: num_experts_per_tok is null"},
      {R"({"num_local_experts":null})", "config.json: num_local_experts is null"},
      {R"({"vocab_size":null})", "config.json: vocab_size is null"},
      {R"({"rms_norm_eps":null})", "config.json: rms_norm_eps is null"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.patch);
    const Error error = error_of([&] { read(patched(c.patch)); });
    CHECK(error.code() == ErrorCode::kBadFormat);
    CHECK(names(error, c.message));
  }
}

TEST_CASE("a number that is not finite is refused where it is read, and nowhere else") {
  const auto with = [](const std::string& member) {
    std::string text = base_config().dump();
    return text.insert(1, member + ",");
  };
  const auto read_text = [](const std::string& config, const std::string& generation) {
    const TempDir dir;
    test::write_text(dir / "config.json", config);
    test::write_text(dir / "generation_config.json", generation);
    return read_hf_config(dir.path()).model;
  };
  CHECK(read_text(with(R"("router_aux_loss_coef":NaN,"attention_dropout":-Infinity)"), R"({"temperature":Infinity})")
            .dim == 4096);
  CHECK(names(error_of([&] { read_text(with(R"("head_dim":NaN)"), "{}"); }),
              "config.json: head_dim is NaN, expected an integer"));
  CHECK(names(error_of([&] { read_text(with(R"("rope_scaling":{"rope_theta":-Infinity})"), "{}"); }),
              "config.json: rope_scaling: rope_theta is -Infinity, expected a number"));
  CHECK(names(error_of([&] { read_text(with(R"("num_experts":Infinity)"), R"({"eos_token_id":NaN})"); }),
              "config.json: num_experts is Infinity, expected an integer"));
  CHECK(names(error_of([&] { read_text(base_config().dump(), R"({"eos_token_id":[2,NaN]})"); }),
              "generation_config.json: eos_token_id[1] is NaN, expected an integer"));
}

TEST_CASE("what config.json says of quantised weights is told, not judged") {
  const auto quantization = [](const std::string& patch) {
    const TempDir dir;
    test::write_text(dir / "config.json", patched(patch).dump());
    return read_hf_config(dir.path()).quantization;
  };
  CHECK(quantization("{}").empty());
  CHECK(quantization(R"({"quantization_config":null})").empty());
  CHECK(quantization(R"({"quantization_config":{"quant_method":"awq"}})") ==
        "quantization_config: quant_method is \"awq\"");
  CHECK(quantization(R"({"quantization_config":{}})") == "quantization_config: quant_method is absent");
}

TEST_CASE("what ends a sequence is what config.json and generation_config.json say, each id once") {
  CHECK(read(base_config(), R"({"eos_token_id":7})").eos_ids == std::vector<TokenId>{2, 7});
  CHECK(read(base_config(), R"({"eos_token_id":[2,7]})").eos_ids == std::vector<TokenId>{2, 7});
  CHECK(read(base_config(), R"({"eos_token_id":null})").eos_ids == std::vector<TokenId>{2});
  CHECK(names(error_of([&] { read(base_config(), R"({"eos_token_id":32000})"); }),
              "generation_config.json: eos_token_id is 32000, expected an integer from 0 to 31999"));
  CHECK(names(error_of([&] { read(base_config(), "{"); }), "generation_config.json: parse error"));
}

TEST_CASE("values out of range are refused with the file, the key and the value") {
  const struct {
    std::string patch, message;
  } cases[] = {
      {R"({"hidden_size":268435457})", "config.json: hidden_size is 268435457, expected"},
      {R"({"num_hidden_layers":0})", "num_hidden_layers is 0, expected an integer from 1 to 65536"},
      {R"({"num_attention_heads":30})", "num_attention_heads 30 is not a multiple of num_key_value_heads 8"},
      {R"({"hidden_size":4100})", "hidden_size 4100 is not a multiple of num_attention_heads 32"},
      {R"({"head_dim":5})", "head_dim is 5, expected an even number"},
      {R"({"hidden_size":32})", "head_dim is 1, expected an even number"},
      {R"({"hidden_size":0})", "hidden_size is 0, expected"},
      {R"({"num_experts":9})", "num_local_experts is 8, num_experts is 9"},
      {R"({"num_local_experts":[8]})", "num_local_experts is an array, expected an integer"},
      {R"({"rms_norm_eps":-1})", "rms_norm_eps is -1, expected a number from 0"},
      {R"({"rope_theta":0})", "rope_theta is 0, expected a number from"},
      {R"({"rope_theta":1e-50})", "rope_theta is 1e-50, expected a number from"},
      {R"({"rope_parameters":{"rope_theta":1e4}})", "rope_parameters: rope_theta is 10000, elsewhere 1e+06"},
      {R"({"rope_scaling":{"type":"linear"}})", "rope_scaling: factor is missing"},
      {R"({"rope_scaling":{"type":"linear","factor":0}})", "rope_scaling: factor is 0, expected a number from"},
      {R"({"rope_scaling":{"type":"linear","factor":"4"}})", "rope_scaling: factor is \"4\", expected a number"},
      {R"({"rope_scaling":{"type":"yarn"}})", "rope_scaling: factor is missing"},
      {R"({"rope_parameters":{"rope_type":"yarn","factor":-4}})", "rope_parameters: factor is -4, expected"},
      {R"({"rope_scaling":{"type":"yarn","factor":4,"original_max_position_embeddings":0}})",
       "original_max_position_embeddings is 0, expected an integer from 1 to 1073741824"},
      {R"({"original_max_position_embeddings":4096,
           "rope_scaling":{"type":"yarn","factor":4,"original_max_position_embeddings":8192}})",
       "rope_scaling: original_max_position_embeddings is 8192, elsewhere 4096"},
      {R"({"rope_scaling":{"type":"yarn","factor":4,"attention_factor":0}})", "attention_factor is 0, expected"},
      {R"({"rope_scaling":{"type":"yarn","factor":4,"beta_fast":1,"beta_slow":2}})",
       "config.json: rope_scaling: beta_fast is 1, beta_slow 2, expected no more than beta_fast"},
      {R"({"rope_theta":1,"rope_scaling":{"type":"yarn","factor":4}})", "rope_theta is 1, yarn needs more than 1"},
      {R"({"rope_scaling":{"rope_type":"linear","type":"yarn","factor":4}})",
       "rope_scaling: type is \"yarn\", rope_type another"},
      {R"({"rope_parameters":{"rope_type":"linear","factor":4},"rope_scaling":{"type":"linear","factor":2}})",
       "rope_scaling: scales otherwise than rope_parameters"},
      {R"({"rope_parameters":[1]})", "rope_parameters: an array, expected an object"},
      {R"({"sliding_window":0})", "sliding_window is 0, expected an integer from 1"},
      {R"({"bos_token_id":32000})", "bos_token_id is 32000, expected an integer from 0 to 31999"},
      {R"({"eos_token_id":[2,-1]})", "eos_token_id[1] is -1, expected an integer from 0 to 31999"},
      {R"({"tie_word_embeddings":"no"})", "tie_word_embeddings is \"no\", expected true or false"},
      {R"({"architectures":"x"})", "architectures is \"x\", expected an array"},
      {R"({"architectures":"-","model_type":"-"})", "neither model_type nor architectures is given"},
      {R"({"model_type":7})", "model_type is 7, expected a string"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.patch);
    const Error error = error_of([&] { read(patched(c.patch)); });
    CHECK(error.code() == ErrorCode::kBadFormat);
    CHECK(names(error, c.message));
  }
  const TempDir dir;
  test::write_text(dir / "config.json", "[]");
  CHECK(names(error_of([&] { read_hf_config(dir.path()); }), "config.json: an array, expected an object"));
}

TEST_CASE("what would compute something else is unsupported, not ignored") {
  const struct {
    std::string patch, message;
  } cases[] = {
      {R"({"model_type":"llama"})", "config.json: model_type is \"llama\", expected \"mixtral\""},
      {R"({"architectures":["MixtralForSequenceClassification"]})", "[\"MixtralForSequenceClassification\"], expected"},
      {R"({"architectures":[]})", "architectures is [], expected"},
      {R"({"hidden_act":"gelu"})", "hidden_act is \"gelu\""},
      {R"({"attention_bias":true})", "attention_bias is true"},
      {R"({"rope_scaling":{"type":"dynamic","factor":4}})",
       "rope_scaling: type is \"dynamic\", supported are \"default\", \"linear\" and \"yarn\""},
      {R"({"rope_scaling":{"type":"ntk"}})", "rope_scaling: type is \"ntk\", supported are"},
      {R"({"rope_scaling":{"rope_type":"longrope"}})", "rope_scaling: rope_type is \"longrope\", supported are"},
      {R"({"rope_scaling":{"type":"yarn","factor":4,"attn_factor":0.5}})",
       "rope_scaling: \"attn_factor\" is 0.5, which is not supported"},
      {R"({"rope_parameters":{"rope_type":"llama3","rope_theta":1e6}})", "rope_parameters: rope_type is \"llama3\""},
      {R"({"rope_parameters":{"partial_rotary_factor":0.5}})", "partial_rotary_factor is 0.5"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.patch);
    const Error error = error_of([&] { read(patched(c.patch)); });
    CHECK(error.code() == ErrorCode::kUnsupported);
    CHECK(names(error, c.message));
  }
}
