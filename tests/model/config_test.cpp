#include "mixtral/model/config.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <limits>

#include "support/error_of.hpp"
#include "support/models.hpp"

using namespace mixtral;

TEST_CASE("sound configurations pass: tied, windowed, odd shapes, without begin and end of text") {
  CHECK_NOTHROW(test::small_config().validate());
  ModelConfig c = test::small_config();
  c.dim = 40;
  c.n_heads = 3;
  c.n_kv_heads = 1;
  c.head_dim = 10;
  c.sliding_window = 1;
  c.tied_embeddings = true;
  c.n_experts = c.n_experts_per_tok = 1;
  c.norm_eps = 0;
  c.bos_id = -1;
  c.eos_ids = {};
  CHECK_NOTHROW(c.validate());
}

TEST_CASE("a wrong field is named with its value") {
  constexpr Index kHuge = std::numeric_limits<Index>::max();
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  struct Case {
    const char* message;
    std::function<void(ModelConfig&)> breaks;
  };
  const Case cases[] = {
      {"dim is 0", [](auto& c) { c.dim = 0; }},
      {"dim is -32", [](auto& c) { c.dim = -32; }},
      {"dim is 9223372036854775807", [](auto& c) { c.dim = kHuge; }},
      {"hidden_dim is 0", [](auto& c) { c.hidden_dim = 0; }},
      {"hidden_dim is 9223372036854775807", [](auto& c) { c.hidden_dim = kHuge; }},
      {"n_layers is 0", [](auto& c) { c.n_layers = 0; }},
      {"n_layers is 9223372036854775807", [](auto& c) { c.n_layers = kHuge; }},
      {"n_heads is 0", [](auto& c) { c.n_heads = 0; }},
      {"n_kv_heads is 0", [](auto& c) { c.n_kv_heads = 0; }},
      {"n_kv_heads is 8", [](auto& c) { c.n_kv_heads = 8; }},
      {"n_heads 4 is not a multiple of n_kv_heads 3", [](auto& c) { c.n_kv_heads = 3; }},
      {"head_dim is 0", [](auto& c) { c.head_dim = 0; }},
      {"head_dim 7 is odd", [](auto& c) { c.head_dim = 7; }},
      {"head_dim is 9223372036854775807", [](auto& c) { c.head_dim = kHuge; }},
      {"n_experts is 0", [](auto& c) { c.n_experts = 0; }},
      {"n_experts is 9223372036854775807", [](auto& c) { c.n_experts = kHuge; }},
      {"n_experts_per_tok is 0", [](auto& c) { c.n_experts_per_tok = 0; }},
      {"n_experts_per_tok is 9", [](auto& c) { c.n_experts_per_tok = 9; }},
      {"vocab_size is 0", [](auto& c) { c.vocab_size = 0; }},
      {"vocab_size is 9223372036854775807", [](auto& c) { c.vocab_size = kHuge; }},
      {"max_positions is 0", [](auto& c) { c.max_positions = 0; }},
      {"max_positions is 9223372036854775807", [](auto& c) { c.max_positions = kHuge; }},
      {"sliding_window is -1", [](auto& c) { c.sliding_window = -1; }},
      {"sliding_window is 9223372036854775807", [](auto& c) { c.sliding_window = kHuge; }},
      {"norm_eps is nan", [=](auto& c) { c.norm_eps = nan; }},
      {"norm_eps is inf", [=](auto& c) { c.norm_eps = infinity; }},
      {"norm_eps is -1", [](auto& c) { c.norm_eps = -1; }},
      {"rope_theta is nan", [=](auto& c) { c.rope_theta = nan; }},
      {"rope_theta is inf", [=](auto& c) { c.rope_theta = infinity; }},
      {"rope_theta is 0", [](auto& c) { c.rope_theta = 0; }},
      {"rope_scaling: factor is 0",
       [](auto& c) { c.rope_scaling = {.kind = RopeScaling::Kind::kLinear, .factor = 0}; }},
      {"rope_theta is 1, yarn needs more than 1",
       [](auto& c) {
         c.rope_theta = 1;
         c.rope_scaling = {.kind = RopeScaling::Kind::kYarn, .original_max_positions = 64};
       }},
      {"bos_id 50", [](auto& c) { c.bos_id = 50; }},
      {"bos_id -2", [](auto& c) { c.bos_id = -2; }},
      {"eos_id 50",
       [](auto& c) {
         c.eos_ids = {2, 50};
       }},
      {"eos_id -1", [](auto& c) { c.eos_ids = {-1}; }},
  };
  for (const Case& wrong : cases) {
    ModelConfig c = test::small_config();
    wrong.breaks(c);
    const Error error = test::error_of([&] { c.validate(); });
    CHECK(error.code() == ErrorCode::kInvalidArgument);
    CHECK(test::names(error, wrong.message));
  }
}
