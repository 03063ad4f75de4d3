// How the keys and values of 32 positions of one key/value head lie in memory, and how a kernel reads them.
//
//   f32   keys [head_dim][32] float32; values [32][v_stride] float32
//   bf16  keys [head_dim / 2][32][2], values [16][v_stride][2]: pairs of dimensions, pairs of positions side by side,
//         as instructions that multiply pairs of bfloat16 want them
//   i8    scales of the keys [32], of the values [32] float32; keys [head_dim][32], values [32][v_stride] int8:
//         a number is scale * q, a scale for each position
//
// v_stride is head_dim rounded up to a multiple of 16; bf16 rounds the keys' head_dim up to an even number. A register
// therefore holds scores of 16 positions, or 16 dimensions of the output: nothing is added across lanes.
#pragma once

#include "mixtral/simd/lanes.hpp"

namespace mixtral::simd {

inline constexpr Index kKvBlock = 32;  // positions

constexpr Index kv_stride(Index head_dim) noexcept { return (head_dim + kLanes - 1) / kLanes * kLanes; }

// Reads a block of elements T as float32: two neighbours at a time, since these lie together in bf16.
template <class Arch, class T>
struct KvReader {
  using V = Lanes<Arch>;
  // Whether scores and probabilities of each position have a factor.
  static constexpr bool kScaled = std::is_same_v<T, std::int8_t>;
  const T *k, *v;
  Index v_stride;

  // Dimensions d (even) and d + 1 of the sixteen positions of one half.
  [[gnu::always_inline]] void keys(Index d, Index half, V (&out)[2]) const noexcept {
    if constexpr (std::is_same_v<T, bf16>) {
      V::load_pairs(k + d * kKvBlock + half * 2 * kLanes, out);
    } else {
      unroll<2>([&](auto i) { out[i] = V::load(k + (d + i) * kKvBlock + half * kLanes); });
    }
  }
  // Dimension d alone, the last of an odd number.
  [[gnu::always_inline]] V last_key(Index d, Index half) const noexcept {
    if constexpr (std::is_same_v<T, bf16>) {
      V pair[2];
      keys(d, half, pair);
      return pair[0];
    } else {
      return V::load(k + d * kKvBlock + half * kLanes);
    }
  }
  // Sixteen dimensions from d on of positions t (even) and t + 1.
  [[gnu::always_inline]] void values(Index t, Index d, V (&out)[2]) const noexcept {
    if constexpr (std::is_same_v<T, bf16>) {
      V::load_pairs(v + t * v_stride + 2 * d, out);
    } else {
      unroll<2>([&](auto i) { out[i] = V::load(v + (t + i) * v_stride + d); });
    }
  }
};

}  // namespace mixtral::simd
