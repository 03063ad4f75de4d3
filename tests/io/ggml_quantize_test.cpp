#include "io/ggml_quantize.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "io/ggml_blocks.hpp"
#include "support/ggml_encoder.hpp"
#include "support/gguf_parse.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

using namespace mixtral;
using Bytes = std::vector<std::uint8_t>;

namespace {

constexpr GgmlType kWritten[] = {GgmlType::kF32, GgmlType::kF16, GgmlType::kQ8_0, GgmlType::kQ4_0};

Bytes blocks_of(GgmlType type, const std::vector<float>& x, bool* fits = nullptr) {
  const GgmlTypeInfo& info = info_of(type);
  Bytes out(x.size() / static_cast<std::size_t>(info.block_weights) * static_cast<std::size_t>(info.block_bytes));
  const bool ok = quantize(type, x.data(), static_cast<Index>(x.size()), reinterpret_cast<std::byte*>(out.data()));
  if (fits != nullptr) *fits = ok;
  if (fits == nullptr) CHECK(ok);
  return out;
}

bool fits(GgmlType type, const std::vector<float>& x) {
  bool ok = false;
  (void)blocks_of(type, x, &ok);
  return ok;
}

std::vector<float> block_of(float value) { return std::vector<float>(32, value); }

}  // namespace

TEST_CASE("random blocks have the bytes that a slow encoder makes of them") {
  test::Random random(5);
  for (const GgmlType type : kWritten) {
    CAPTURE(name_of(type));
    for (int i = 0; i < 3000; ++i) {
      // From where scales are 0 in 16 bits to where they are large; some blocks are halves of whole numbers, which
      // rounding has to decide, some have zeros of both signs.
      const double size = std::exp2(random.uniform(-50, 15));
      std::vector<float> x = random.values<float>(64, -size, size);
      if (i % 3 == 1) {
        for (float& v : x) v = std::round(v / static_cast<float>(size) * 127) / 2;
        x[static_cast<std::size_t>(random.index(0, 31))] = i % 2 == 0 ? 127 : -8;
      }
      if (i % 3 == 2) {
        for (float& v : x) v = random.chance(0.5) ? v : std::copysign(0.0f, v);
      }
      if (blocks_of(type, x) != test::encoded(type, x)) FAIL_CHECK("block ", i, " of size ", size);
    }
  }
}

TEST_CASE("blocks of the golden files, which another program made, come out as they were") {
  Index n_blocks = 0;
  for (const char* name : {"G_q8_0.gguf", "G_q4_0.gguf", "V_q8_0.gguf", "K_q4_k_m.gguf"}) {
    const test::GgufContents file = test::parse_gguf(test::golden_dir() / "gguf/models" / name);
    for (const test::GgufTensor& tensor : file.tensors) {
      const GgmlType type = find_ggml_type(tensor.type)->type;
      if (type != GgmlType::kQ8_0 && type != GgmlType::kQ4_0) continue;
      CAPTURE(tensor.name);
      std::vector<float> x(static_cast<std::size_t>(tensor.n_weights()));
      dequantize(type, file.data(tensor), tensor.n_weights(), x.data());
      const Bytes got = blocks_of(type, x);
      CHECK(std::memcmp(got.data(), file.data(tensor), got.size()) == 0);
      n_blocks += tensor.n_weights() / 32;
    }
  }
  CHECK(n_blocks > 10000);
}

TEST_CASE("what is read back is at most half a step from the weight") {
  test::Random random(6);
  const std::vector<float> x = random.values<float>(32 * 500, -3, 3);
  // Half a step of the codes, and the rounding of the scale to 11 bits. In Q4_0 the end that is opposite to the
  // largest number lacks a step: 8 is stored as 7.
  for (const auto& [type, step] : {std::pair{GgmlType::kQ8_0, 0.501 / 127 + 0x1p-11}, {GgmlType::kQ4_0, 1.001 / 8}}) {
    CAPTURE(name_of(type));
    const Bytes blocks = blocks_of(type, x);
    std::vector<float> got(x.size());
    dequantize(type, reinterpret_cast<const std::byte*>(blocks.data()), static_cast<Index>(x.size()), got.data());
    for (std::size_t begin = 0; begin < x.size(); begin += 32) {
      float most = 0;
      for (std::size_t i = begin; i < begin + 32; ++i) most = std::max(most, std::abs(x[i]));
      for (std::size_t i = begin; i < begin + 32; ++i) CHECK(std::abs(got[i] - x[i]) <= step * most);
    }
  }
}

TEST_CASE("Q8_0 and Q4_0, computed by hand") {
  std::vector<float> x = block_of(0);
  x[0] = 127;
  x[1] = -127;
  x[2] = 0.5f;         // away from zero
  x[3] = -2.5f;        // away from zero
  x[4] = 0.49999997f;  // not to 1
  Bytes want(34, 0);
  want[1] = 0x3c;  // d = 1
  want[2] = 127;
  want[3] = 0x81;
  want[4] = 1;
  want[5] = 0xfd;
  CHECK(blocks_of(GgmlType::kQ8_0, x) == want);

  x = block_of(0);
  x[0] = 4;    // the first of the largest magnitude: d = -0.5, code 0
  x[16] = -4;  // 16, cut to 15
  x[1] = -1;   // 2 steps up: 10
  Bytes four(18, 0x88);
  four[0] = 0;
  four[1] = 0xb8;
  four[2] = 0xf0;
  four[3] = 0x8a;
  CHECK(blocks_of(GgmlType::kQ4_0, x) == four);
}

TEST_CASE("zeros, and numbers too small for a scale of 16 bits, become zeros") {
  for (const float tiny : {0.0f, -0.0f, std::numeric_limits<float>::denorm_min(), 0x1p-128f, 1e-30f}) {
    CAPTURE(tiny);
    for (const GgmlType type : {GgmlType::kQ8_0, GgmlType::kQ4_0, GgmlType::kF16}) {
      const Bytes blocks = blocks_of(type, block_of(tiny));
      std::vector<float> got(32, 1);
      dequantize(type, reinterpret_cast<const std::byte*>(blocks.data()), 32, got.data());
      for (const float y : got) CHECK(y == 0);
    }
  }
}

TEST_CASE("what a type cannot hold is told, wherever it stands") {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const GgmlType type : kWritten) {
    CAPTURE(name_of(type));
    for (const float bad : {infinity, -infinity, nan, -nan}) {
      for (const std::size_t at : {std::size_t{0}, std::size_t{40}, std::size_t{63}}) {
        std::vector<float> x(64, 1);
        x[at] = bad;
        CHECK_FALSE(fits(type, x));
      }
    }
  }
  CHECK(fits(GgmlType::kF16, block_of(65519.996f)));
  CHECK_FALSE(fits(GgmlType::kF16, block_of(-65520)));
  CHECK(fits(GgmlType::kQ8_0, block_of(65504 * 127.0f)));
  CHECK_FALSE(fits(GgmlType::kQ8_0, block_of(65520 * 127.0f)));
  CHECK(fits(GgmlType::kQ4_0, block_of(65504 * 8.0f)));
  CHECK_FALSE(fits(GgmlType::kQ4_0, block_of(std::numeric_limits<float>::max())));
  CHECK(fits(GgmlType::kF32, block_of(std::numeric_limits<float>::max())));
}

TEST_CASE("other types are not written") {
  for (const GgmlTypeInfo& info : kGgmlTypes) {
    const bool written = std::find(std::begin(kWritten), std::end(kWritten), info.type) != std::end(kWritten);
    CHECK(can_quantize(info.type) == written);
    if (!written) CHECK_FALSE(quantize(info.type, nullptr, 0, nullptr));
  }
}
