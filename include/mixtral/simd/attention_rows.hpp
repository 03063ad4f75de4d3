// One token's attention for the query heads that share one key/value head, over blocks of the KV cache.
//
// Online softmax (Milakov and Gimelshein 2018), block by block. Blocks begin at absolute multiples of
// kKvBlock positions, so a result depends on the token's position alone and not on how the prompt was split.
#pragma once

#include <algorithm>
#include <limits>

#include "mixtral/simd/lanes.hpp"

namespace mixtral::simd {

inline constexpr Index kKvBlock = 32;  // positions: two Lanes of scores

struct AttentionArgs {
  const float* q;  // [group, head_dim], heads q_stride apart
  Index q_stride;
  Index group;  // query heads that share this key/value head
  Index head_dim;
  // Page b holds positions [32 b, 32 b + 32): keys transposed, [head_dim][32], at k_offset, values
  // [32][v_stride] at v_offset. v_stride is head_dim rounded up to a multiple of 16.
  const float* const* pages;
  Index k_offset, v_offset;
  Index v_stride;
  Index first, end;  // positions seen: [first, end), first < end
  float scale;
  float* out;  // [group, v_stride], heads out_stride apart
  Index out_stride;
};

namespace detail {

// scores[g][32] = scale * q[g] . k, for H heads at once (each its own sums: the grouping changes no bit).
template <class Arch, int H>
void block_scores(const AttentionArgs& a, Index g0, const float* k, float* scores) noexcept {
  using V = Lanes<Arch>;
  V acc[H][2];
  unroll<H>([&](auto h) { acc[h][0] = acc[h][1] = V::zero(); });
  const float* q = a.q + g0 * a.q_stride;
  for (Index d = 0; d < a.head_dim; ++d) {
    const V low = V::load(k + d * kKvBlock), high = V::load(k + d * kKvBlock + kLanes);
    unroll<H>([&](auto h) {
      const V qs = V::broadcast(q[h * a.q_stride + d]);
      acc[h][0] = fma(qs, low, acc[h][0]);
      acc[h][1] = fma(qs, high, acc[h][1]);
    });
  }
  const V scale = V::broadcast(a.scale);
  unroll<H>([&](auto h) {
    (acc[h][0] * scale).store(scores + h * kKvBlock);
    (acc[h][1] * scale).store(scores + h * kKvBlock + kLanes);
  });
}

// out = out * correction + sum over t in [begin, end) of p[t] * v[t], for C Lanes of the head.
template <class Arch, int C>
void add_values(const float* p, const float* v, Index v_stride, Index begin, Index end, float correction,
                float* out) noexcept {
  using V = Lanes<Arch>;
  V acc[C];
  unroll<C>([&](auto c) { acc[c] = V::load(out + c * kLanes) * V::broadcast(correction); });
  for (Index t = begin; t < end; ++t) {
    const V ps = V::broadcast(p[t]);
    unroll<C>([&](auto c) { acc[c] = fma(ps, V::load(v + t * v_stride + c * kLanes), acc[c]); });
  }
  unroll<C>([&](auto c) { acc[c].store(out + c * kLanes); });
}

struct SoftmaxState {
  float largest;
  float total;
};

// Takes one head's scores of one block into its running softmax and output.
template <class Arch>
void absorb_block(const AttentionArgs& a, float* scores, const float* v, Index begin, Index end, SoftmaxState& state,
                  float* out) noexcept {
  using V = Lanes<Arch>;
  for (Index t = 0; t < begin; ++t) scores[t] = -std::numeric_limits<float>::infinity();
  for (Index t = end; t < kKvBlock; ++t) scores[t] = -std::numeric_limits<float>::infinity();
  const V low = V::load(scores), high = V::load(scores + kLanes);
  const float block_largest = max(low, high).largest();
  const float largest = block_largest > state.largest ? block_largest : state.largest;
  const V top = V::broadcast(largest);
  const V p_low = exp(low - top), p_high = exp(high - top);
  const float correction = exp(V::broadcast(state.largest - largest)).first();
  state = {largest, state.total * correction + (p_low + p_high).sum()};
  p_low.store(scores);
  p_high.store(scores + kLanes);
  Index d = 0;
  for (; d + 4 * kLanes <= a.v_stride; d += 4 * kLanes) {
    add_values<Arch, 4>(scores, v + d, a.v_stride, begin, end, correction, out + d);
  }
  for (; d < a.v_stride; d += kLanes) add_values<Arch, 1>(scores, v + d, a.v_stride, begin, end, correction, out + d);
}

template <class Arch, int H>
void attend_heads(const AttentionArgs& a, Index g0) noexcept {
  using V = Lanes<Arch>;
  SoftmaxState state[H];
  for (Index h = 0; h < H; ++h) {
    state[h] = {-std::numeric_limits<float>::infinity(), 0.0f};
    std::memset(a.out + (g0 + h) * a.out_stride, 0, static_cast<std::size_t>(a.v_stride) * sizeof(float));
  }
  alignas(64) float scores[H * kKvBlock];
  for (Index b = a.first / kKvBlock; b * kKvBlock < a.end; ++b) {
    const Index begin = std::max<Index>(a.first - b * kKvBlock, 0);
    const Index end = std::min(a.end - b * kKvBlock, kKvBlock);
    block_scores<Arch, H>(a, g0, a.pages[b] + a.k_offset, scores);
    for (Index h = 0; h < H; ++h) {
      absorb_block<Arch>(a, scores + h * kKvBlock, a.pages[b] + a.v_offset, begin, end, state[h],
                         a.out + (g0 + h) * a.out_stride);
    }
  }
  for (Index h = 0; h < H; ++h) {
    float* out = a.out + (g0 + h) * a.out_stride;
    const V scale = V::broadcast(1.0f / state[h].total);
    for (Index d = 0; d < a.v_stride; d += kLanes) (V::load(out + d) * scale).store(out + d);
  }
}

}  // namespace detail

template <class Arch>
void attention(const AttentionArgs& a) noexcept {
  Index g = 0;
  for (; g + 4 <= a.group; g += 4) detail::attend_heads<Arch, 4>(a, g);
  for (; g < a.group; ++g) detail::attend_heads<Arch, 1>(a, g);
}

}  // namespace mixtral::simd
