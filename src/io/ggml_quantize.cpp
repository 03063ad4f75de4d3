// Each block is made in the reference's order of operations: a float32 scale, its inverse, codes by the inverse. The
// scale is rounded to 16 bits for the file only, after that.
#include "io/ggml_quantize.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "mixtral/core/float16.hpp"

namespace mixtral {
namespace {

constexpr Index kBlock = 32;  // weights, of Q8_0 and Q4_0

// As integers the bits of magnitudes have the order of the numbers; infinity and NaN come last.
constexpr std::uint32_t kInfinity = 0x7f800000;
std::uint32_t magnitude_bits(float x) noexcept { return std::bit_cast<std::uint32_t>(x) & 0x7fffffff; }

std::uint32_t largest_bits(const float* x, Index n) noexcept {
  std::uint32_t most = 0;
  for (Index i = 0; i < n; ++i) most = std::max(most, magnitude_bits(x[i]));
  return most;
}

// False: it is no finite number of 16 bits.
bool put_f16(float x, std::byte* out) noexcept {
  const f16 half = to_f16(x);
  std::memcpy(out, &half.bits, sizeof half.bits);
  return (half.bits & 0x7c00) != 0x7c00;
}

// 0 for a block of zeros, and for numbers so small that the inverse would be infinite: their scale is 0 in 16 bits.
float inverse(float scale) noexcept { return std::abs(scale) > 0x1p-128f ? 1 / scale : 0; }

// Halves go away from zero. The number added is the largest below a half: with a half itself, 0.49999997 would
// become 1.
std::int32_t rounded(float x) noexcept { return static_cast<std::int32_t>(x + std::copysign(0x1.fffffep-2f, x)); }

bool float32(const float* x, std::byte* block) noexcept {
  std::memcpy(block, x, sizeof *x);
  return magnitude_bits(*x) < kInfinity;
}

bool float16(const float* x, std::byte* block) noexcept { return put_f16(*x, block); }

// d, 32 codes from -127 to 127: d is the largest magnitude / 127
bool q8_0(const float* x, std::byte* block) noexcept {
  const std::uint32_t most = largest_bits(x, kBlock);
  if (most >= kInfinity) return false;
  const float d = std::bit_cast<float>(most) / 127, by = inverse(d);
  for (Index i = 0; i < kBlock; ++i) block[2 + i] = static_cast<std::byte>(rounded(x[i] * by));
  return put_f16(d, block);
}

// d, 16 bytes of codes from 0 to 15 (low halves the first 16 of them): d is the first number of the largest magnitude
// / -8, so that it has the code 0, -8 in units of d
bool q4_0(const float* x, std::byte* block) noexcept {
  const std::uint32_t most = largest_bits(x, kBlock);
  if (most >= kInfinity) return false;
  const auto is_largest = [&](float y) { return magnitude_bits(y) == most; };
  const float largest = most == 0 ? 0 : *std::find_if(x, x + kBlock, is_largest);  // zeros: never -0
  const float d = largest / -8, by = inverse(d);
  const auto code = [&](float y) { return std::min(15, static_cast<std::int32_t>(y * by + 8.5f)); };
  for (Index i = 0; i < kBlock / 2; ++i) {
    block[2 + i] = static_cast<std::byte>(code(x[i]) | code(x[i + kBlock / 2]) << 4);
  }
  return put_f16(d, block);
}

template <GgmlType kType, bool (*kEncode)(const float*, std::byte*) noexcept>
bool encode(const float* weights, Index n_weights, std::byte* blocks) noexcept {
  constexpr GgmlTypeInfo kInfo = info_of(kType);
  bool fits = true;
  for (; n_weights > 0; n_weights -= kInfo.block_weights) {
    fits = kEncode(weights, blocks) && fits;
    weights += kInfo.block_weights;
    blocks += kInfo.block_bytes;
  }
  return fits;
}

}  // namespace

bool can_quantize(GgmlType type) noexcept {
  return type == GgmlType::kF32 || type == GgmlType::kF16 || type == GgmlType::kQ8_0 || type == GgmlType::kQ4_0;
}

bool quantize(GgmlType type, const float* weights, Index n_weights, std::byte* blocks) noexcept {
  switch (type) {
    case GgmlType::kF32: return encode<GgmlType::kF32, float32>(weights, n_weights, blocks);
    case GgmlType::kF16: return encode<GgmlType::kF16, float16>(weights, n_weights, blocks);
    case GgmlType::kQ8_0: return encode<GgmlType::kQ8_0, q8_0>(weights, n_weights, blocks);
    case GgmlType::kQ4_0: return encode<GgmlType::kQ4_0, q4_0>(weights, n_weights, blocks);
    default: return false;
  }
}

}  // namespace mixtral
