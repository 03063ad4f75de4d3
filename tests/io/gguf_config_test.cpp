#include "io/gguf_config.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support/error_of.hpp"
#include "support/gguf_bytes.hpp"

using namespace mixtral;
using test::error_of;
using test::gguf_key;
using test::names;
using Kind = RopeScaling::Kind;
using Keys = std::vector<std::string>;

namespace {

std::string u32(const std::string& name, std::uint32_t value) {
  return gguf_key("llama." + name, GgufType::kU32, value);
}
std::string f32(const std::string& name, float value) { return gguf_key("llama." + name, GgufType::kF32, value); }
std::string type(const std::string& value) { return gguf_key("llama.rope.scaling.type", GgufType::kString, value); }

// A small model's keys, and more.
ModelConfig read(const Keys& more) {
  Keys keys = {gguf_key("general.architecture", GgufType::kString, std::string("llama")),
               u32("context_length", 65536),
               u32("embedding_length", 32),
               u32("block_count", 2),
               u32("feed_forward_length", 48),
               u32("attention.head_count", 4),
               u32("expert_count", 8),
               u32("expert_used_count", 2),
               f32("attention.layer_norm_rms_epsilon", 1e-5f),
               f32("rope.freq_base", 1e6f)};
  keys.insert(keys.end(), more.begin(), more.end());
  std::string bytes = test::gguf_header(0, keys.size());
  for (const std::string& key : keys) bytes += key;
  return read_gguf_config(GgufFile(std::as_bytes(std::span(bytes)), "file"));
}

}  // namespace

TEST_CASE("a GGUF file that scales nothing, in any spelling, has no scaling") {
  CHECK(read({}).rope_scaling == RopeScaling{});
  CHECK(read({}).max_positions == 65536);
  CHECK(read({type("none"), f32("rope.scaling.factor", 4)}).rope_scaling == RopeScaling{});
  CHECK(read({type("linear"), f32("rope.scaling.factor", 1)}).rope_scaling == RopeScaling{});
  CHECK(read({type("linear"), f32("rope.scaling.factor", 0)}).rope_scaling == RopeScaling{});
  CHECK(read({gguf_key("llama.rope.scaling.finetuned", GgufType::kBool, std::uint8_t{1}),
              f32("rope.scaling.attn_factor", 1)})
            .rope_scaling == RopeScaling{});
}

TEST_CASE("linear scaling of a GGUF file is its factor, with or without a type; attn_factor is the magnitude") {
  const RopeScaling want{.kind = Kind::kLinear, .factor = 4};
  CHECK(read({type("linear"), f32("rope.scaling.factor", 4)}).rope_scaling == want);
  CHECK(read({f32("rope.scaling.factor", 4)}).rope_scaling == want);
  CHECK(read({type("none"), f32("rope.scaling.factor", 4), f32("rope.scaling.attn_factor", 0.5f)}).rope_scaling ==
        RopeScaling{.kind = Kind::kLinear, .attention_factor = 0.5f});
}

TEST_CASE("yarn of a GGUF file has llama.cpp's defaults, and attn_factor on top of its own magnitude") {
  RopeScaling want{.kind = Kind::kYarn,
                   .factor = 4,
                   .attention_factor = static_cast<float>(yarn_attention_factor(4)),
                   .original_max_positions = 65536};
  CHECK(read({type("yarn"), f32("rope.scaling.factor", 4)}).rope_scaling == want);
  want.original_max_positions = 16384;
  CHECK(read({type("yarn"), f32("rope.scaling.factor", 4), u32("rope.scaling.original_context_length", 16384)})
            .rope_scaling == want);
  want.attention_factor *= 0.5f;
  want.beta_fast = 16;
  want.beta_slow = 2;
  CHECK(read({type("yarn"), f32("rope.scaling.factor", 4), u32("rope.scaling.original_context_length", 16384),
              f32("rope.scaling.attn_factor", 0.5f), f32("rope.scaling.yarn_beta_fast", 16),
              f32("rope.scaling.yarn_beta_slow", 2)})
            .rope_scaling == want);
}

TEST_CASE("a scaling of a GGUF file that is unknown or out of range is refused by its key and value") {
  const struct {
    Keys keys;
    ErrorCode code;
    const char* message;
  } cases[] = {
      {{type("longrope")},
       ErrorCode::kUnsupported,
       "llama.rope.scaling.type is \"longrope\", supported are none, linear and yarn"},
      {{f32("rope.scaling.yarn_ext_factor", 0)}, ErrorCode::kUnsupported, "\"llama.rope.scaling.yarn_ext_factor\""},
      {{f32("rope.scaling.yarn_attn_factor", 1)}, ErrorCode::kUnsupported, "\"llama.rope.scaling.yarn_attn_factor\""},
      {{f32("rope.scaling.yarn_log_multiplier", 1)}, ErrorCode::kUnsupported, "scaling.yarn_log_multiplier\" is not"},
      {{f32("rope.scaling.factor", -2)}, ErrorCode::kBadFormat, "file: llama.rope.scaling.factor is -2, expected"},
      {{f32("rope.scaling.attn_factor", 0)}, ErrorCode::kBadFormat, "llama.rope.scaling.attn_factor is 0, expected"},
      {{type("yarn"), u32("rope.scaling.original_context_length", 0)},
       ErrorCode::kBadFormat,
       "llama.rope.scaling.original_context_length is 0, expected 1 to 1073741824"},
      {{type("yarn"), f32("rope.scaling.yarn_beta_slow", 0)}, ErrorCode::kBadFormat, "yarn_beta_slow is 0, expected"},
      {{gguf_key("llama.rope.scaling.type", GgufType::kU32, std::uint32_t{2})},
       ErrorCode::kBadFormat,
       "llama.rope.scaling.type is of type u32, expected a string"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.message);
    const Error error = error_of([&] { (void)read(c.keys); });
    CHECK(error.code() == c.code);
    CHECK(names(error, c.message));
  }
}

TEST_CASE("scaling that is written is read as it was, magnitudes to the bit") {
  ModelConfig config = read({});
  config.vocab_size = 300;
  std::vector<RopeScaling> all;
  for (const float factor : {1.5f, 4.0f, 32.0f}) {
    all.push_back({.kind = Kind::kLinear, .factor = factor});
    all.push_back({.kind = Kind::kLinear, .factor = factor, .attention_factor = 0.7f});
    const auto own = static_cast<float>(yarn_attention_factor(static_cast<double>(factor)));
    for (const float more : {1.0f, 0.3f, 1.0f / 3, 2.0f}) {
      all.push_back({.kind = Kind::kYarn,
                     .factor = factor,
                     .attention_factor = own * more,
                     .original_max_positions = 8192,
                     .beta_fast = 24,
                     .beta_slow = 2});
    }
  }
  for (const RopeScaling& scaling : all) {
    config.rope_scaling = scaling;
    GgufKeys keys;
    keys.text("general.architecture", "llama");
    add_gguf_config(config, keys);
    const std::string bytes = keys.header(0);
    const ModelConfig got = read_gguf_config(GgufFile(std::as_bytes(std::span(bytes)), "file"));
    CAPTURE(name_of(scaling.kind));
    CAPTURE(scaling.factor);
    CAPTURE(scaling.attention_factor);
    CHECK(got.rope_scaling == scaling);
  }
  config.rope_scaling = all.back();
  config.rope_scaling.truncate = false;
  GgufKeys keys;
  CHECK(test::error_of([&] { add_gguf_config(config, keys); }).code() == ErrorCode::kUnsupported);
}
