// What decoders of GGML's blocks share. Each makes signed bytes of the codes of a block first, then floats of the
// bytes: both are plain loops of constant length, which compilers turn into vector code.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "mixtral/core/float16.hpp"
#include "mixtral/core/types.hpp"

namespace mixtral::ggml {

using Bytes = const std::uint8_t*;
using Code = std::int8_t;

inline constexpr Index kSuper = 256;  // weights of a block of the k- and i-quants

// Blocks, and the fields in them, lie at any alignment.
template <class T>
T read(Bytes at) noexcept {
  T number;
  std::memcpy(&number, at, sizeof number);
  return number;
}
inline std::uint32_t read_u16(Bytes at) noexcept { return read<std::uint16_t>(at); }
inline std::uint32_t read_u32(Bytes at) noexcept { return read<std::uint32_t>(at); }
inline float read_f16(Bytes at) noexcept { return to_float(f16{read<std::uint16_t>(at)}); }

// Half a byte: the low one for even i.
inline std::uint32_t nibble(std::uint32_t byte, Index i) noexcept { return byte >> 4 * (i & 1) & 15; }

// kBytes bytes hold twice as many codes: the low halves are the first of them, the high halves the others.
template <Index kBytes>
void split_nibbles(Bytes bytes, Code* codes) noexcept {
  for (Index i = 0; i < kBytes; ++i) {
    codes[i] = static_cast<Code>(bytes[i] & 15);
    codes[i + kBytes] = static_cast<Code>(bytes[i] >> 4);
  }
}

// d q
template <Index kWeights>
void scaled(float d, const Code* codes, float* out) noexcept {
  for (Index i = 0; i < kWeights; ++i) out[i] = d * static_cast<float>(codes[i]);
}

// d q - m, each step rounded. (d q + m is the same with -m.)
template <Index kWeights>
void scaled_minus(float d, float m, const Code* codes, float* out) noexcept {
  for (Index i = 0; i < kWeights; ++i) out[i] = d * static_cast<float>(codes[i]) - m;
}

// Entry b: eight bytes, the first the lowest, 0xff for each bit of b that is set.
inline constexpr std::array<std::uint64_t, 256> kMasks = [] {
  std::array<std::uint64_t, 256> masks = {};
  for (unsigned b = 0; b < 256; ++b) {
    for (unsigned j = 0; j < 8; ++j) {
      if (b >> j & 1) masks[b] |= std::uint64_t{0xff} << 8 * j;
    }
  }
  return masks;
}();

// Scale and minimum i of the eight of Q4_K and Q5_K, of six bits, in 12 bytes: the first four s, the first four m, then
// the low bits of the others, whose two high bits are on top of the first ones.
struct ScaleAndMin {
  std::uint8_t s, m;
};
inline ScaleAndMin scale_and_min(Bytes scales, Index i) noexcept {
  const auto byte = [](int x) { return static_cast<std::uint8_t>(x); };
  if (i < 4) return {byte(scales[i] & 63), byte(scales[i + 4] & 63)};
  const int low = scales[i + 4], s_high = scales[i - 4] >> 6, m_high = scales[i] >> 6;
  return {byte((low & 15) | s_high << 4), byte(low >> 4 | m_high << 4)};
}

// One block of each i-quant (ggml_iq_blocks.cpp).
void iq2_xxs(Bytes block, float* out) noexcept;
void iq2_xs(Bytes block, float* out) noexcept;
void iq2_s(Bytes block, float* out) noexcept;
void iq3_xxs(Bytes block, float* out) noexcept;
void iq3_s(Bytes block, float* out) noexcept;
void iq1_s(Bytes block, float* out) noexcept;
void iq1_m(Bytes block, float* out) noexcept;
void iq4_nl(Bytes block, float* out) noexcept;
void iq4_xs(Bytes block, float* out) noexcept;

}  // namespace mixtral::ggml
