#include "mixtral/io/write_huggingface.hpp"

#include <doctest/doctest.h>

#include <cstring>

#include "mixtral/io/huggingface.hpp"
#include "support/error_of.hpp"
#include "support/golden.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;

TEST_CASE("write_huggingface: what was written loads again with the same bytes") {
  for (const char* name :
       {"models/A", "models/B", "malformed_hf/legal_fused_experts", "malformed_hf/legal_mixed_dtypes"}) {
    CAPTURE(name);
    const Checkpoint want = load_huggingface(test::golden_dir() / name);
    const test::TempDir dir;
    write_huggingface(dir.path() / "copy", want.model.config, want.model.weights);
    const Checkpoint got = load_huggingface(dir.path() / "copy");
    CHECK(got.model.config.sliding_window == want.model.config.sliding_window);
    CHECK(got.model.config.rope_theta == want.model.config.rope_theta);
    CHECK(got.model.config.norm_eps == want.model.config.norm_eps);
    CHECK(got.model.config.eos_ids == want.model.config.eos_ids);
    for_each_tensor(want.model.config, [&](const TensorSlot& slot, const Shape<2>&) {
      const MatrixView &a = want.model.weights.at(slot), &b = got.model.weights.at(slot);
      REQUIRE(a.dtype == b.dtype);
      REQUIRE(a.bytes() == b.bytes());
      CHECK(std::memcmp(a.data, b.data, static_cast<std::size_t>(a.bytes())) == 0);
    });
  }
}

TEST_CASE("write_huggingface: scaled RoPE is written as Hugging Face has it, or refused where it cannot be") {
  const Checkpoint base = load_huggingface(test::golden_dir() / "malformed_hf/_base");
  const test::TempDir dir;
  using Kind = RopeScaling::Kind;
  ModelConfig config = base.model.config;
  for (const RopeScaling& scaling :
       {RopeScaling{.kind = Kind::kLinear, .factor = 1.3f}, RopeScaling{.kind = Kind::kYarn,
                                                            .factor = 4,
                                                            .attention_factor = 1.1f,
                                                            .original_max_positions = 16,
                                                            .beta_fast = 8,
                                                            .beta_slow = 0.3f,
                                                            .truncate = false}}) {
    config.rope_scaling = scaling;
    write_huggingface(dir / "copy", config, base.model.weights);
    CHECK(load_huggingface(dir / "copy").model.config.rope_scaling == scaling);
  }
  config.rope_scaling = {.kind = Kind::kLinear, .factor = 2, .attention_factor = 0.5f};
  const Error error = test::error_of([&] { write_huggingface(dir / "copy", config, base.model.weights); });
  CHECK(error.code() == ErrorCode::kUnsupported);
  CHECK(test::names(error, "rope_scaling is linear with an attention_factor of 0.5"));
}

TEST_CASE("write_huggingface: a directory that cannot be made is named") {
  const Checkpoint model = load_huggingface(test::golden_dir() / "malformed_hf/_base");
  CHECK_THROWS_AS(write_huggingface("/proc/no/such", model.model.config, model.model.weights), Error);
}
