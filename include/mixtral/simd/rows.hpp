// Row primitives on raw pointers: one function per step of the model, for one row or one head.
// All pointers may have any alignment; no pointer may alias another unless said so.
#pragma once

#include <cstdint>
#include <limits>

#include "mixtral/simd/lanes.hpp"

namespace mixtral::simd {

// Calls full(i) for every i = 0, 16, ... with 16 elements left and rest(i, count) for what remains.
template <class Arch, class Full, class Rest>
[[gnu::always_inline]] inline void for_lanes(Index n, Full&& full, Rest&& rest) noexcept {
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) full(i);
  if (i < n) rest(i, n - i);
}

// out[i] = float(in[i]), exactly.
template <class Arch, class T>
void widen(const std::byte* in, Index n, float* out) noexcept {
  const T* p = reinterpret_cast<const T*>(in);
  for_lanes<Arch>(
      n, [&](Index i) { Lanes<Arch>::load(p + i).store(out + i); },
      [&](Index i, Index rest) { Lanes<Arch>::load_first(p + i, rest).store_first(out + i, rest); });
}

// y = weight * x / sqrt(mean(x^2) + eps). y may be x.
template <class Arch>
void rms_norm(const float* x, const float* weight, float eps, Index n, float* y) noexcept {
  using V = Lanes<Arch>;
  V squares = V::zero();
  for_lanes<Arch>(
      n,
      [&](Index i) {
        const V v = V::load(x + i);
        squares = fma(v, v, squares);
      },
      [&](Index i, Index rest) {
        const V v = V::load_first(x + i, rest);
        squares = fma(v, v, squares);
      });
  const V scale = V::broadcast(1.0f / std::sqrt(squares.sum() / static_cast<float>(n) + eps));
  for_lanes<Arch>(
      n, [&](Index i) { (V::load(x + i) * scale * V::load(weight + i)).store(y + i); },
      [&](Index i, Index rest) {
        (V::load_first(x + i, rest) * scale * V::load_first(weight + i, rest)).store_first(y + i, rest);
      });
}

// x = exp(x - max(x)) / sum. -infinity becomes 0. n > 0.
template <class Arch>
void softmax(float* x, Index n) noexcept {
  using V = Lanes<Arch>;
  float largest = x[0];
  for_lanes<Arch>(
      n,
      [&](Index i) {
        const float best = V::load(x + i).largest();
        largest = best > largest ? best : largest;
      },
      [&](Index i, Index rest) {
        for (Index k = i; k < i + rest; ++k) largest = x[k] > largest ? x[k] : largest;
      });
  const V top = V::broadcast(largest);
  V total = V::zero();
  for_lanes<Arch>(
      n,
      [&](Index i) {
        const V e = exp(V::load(x + i) - top);
        e.store(x + i);
        total = total + e;
      },
      [&](Index i, Index rest) {
        exp(V::load_first(x + i, rest) - top).store_first(x + i, rest);
        total = total + V::load_first(x + i, rest);
      });
  const V scale = V::broadcast(1.0f / total.sum());
  for_lanes<Arch>(
      n, [&](Index i) { (V::load(x + i) * scale).store(x + i); },
      [&](Index i, Index rest) { (V::load_first(x + i, rest) * scale).store_first(x + i, rest); });
}

// h = silu(gate) * up, silu(g) = g / (1 + exp(-g)). h may be gate or up.
template <class Arch>
void swiglu(const float* gate, const float* up, Index n, float* h) noexcept {
  using V = Lanes<Arch>;
  const V one = V::broadcast(1.0f);
  const auto apply = [&](const V& g, const V& u) { return g / (one + exp(V::zero() - g)) * u; };
  for_lanes<Arch>(
      n, [&](Index i) { apply(V::load(gate + i), V::load(up + i)).store(h + i); },
      [&](Index i, Index rest) {
        apply(V::load_first(gate + i, rest), V::load_first(up + i, rest)).store_first(h + i, rest);
      });
}

// y += a * x.
template <class Arch>
void axpy(float a, const float* x, Index n, float* y) noexcept {
  using V = Lanes<Arch>;
  const V scale = V::broadcast(a);
  for_lanes<Arch>(
      n, [&](Index i) { fma(scale, V::load(x + i), V::load(y + i)).store(y + i); },
      [&](Index i, Index rest) {
        fma(scale, V::load_first(x + i, rest), V::load_first(y + i, rest)).store_first(y + i, rest);
      });
}

// Rotates one head in place. cos, sin: [head_dim / 2]. Half-split pairs i with i + head_dim/2.
template <class Arch>
void rope_half_split(float* x, const float* cos, const float* sin, Index head_dim) noexcept {
  using V = Lanes<Arch>;
  const Index half = head_dim / 2;
  for_lanes<Arch>(
      half,
      [&](Index i) {
        const V a = V::load(x + i), b = V::load(x + half + i), c = V::load(cos + i), s = V::load(sin + i);
        (a * c - b * s).store(x + i);
        (b * c + a * s).store(x + half + i);
      },
      [&](Index i, Index rest) {
        const V a = V::load_first(x + i, rest), b = V::load_first(x + half + i, rest);
        const V c = V::load_first(cos + i, rest), s = V::load_first(sin + i, rest);
        (a * c - b * s).store_first(x + i, rest);
        (b * c + a * s).store_first(x + half + i, rest);
      });
}

// Pairs 2i with 2i + 1. A plain loop: neighbours in one register would only be shuffled back and forth.
template <class Arch>
void rope_interleaved(float* x, const float* cos, const float* sin, Index head_dim) noexcept {
  for (Index i = 0; i < head_dim / 2; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

// The two largest of eight router logits, the larger first, ties to the lower id, and their softmax. All
// eight sit in one register; a choice is one reduction, one comparison and one bit scan, without a branch on
// the data. The weights have the bits that `softmax` gives. False, with nothing written, if fewer than two
// are finite: an infinity or NaN is no choice.
template <class Arch>
bool top2_of_8(const float* logits, std::int32_t* ids, float* weights) noexcept {
  using V = Lanes<Arch>;
  constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNone = -kInfinity;
  float v[kLanes];
  for (Index i = 0; i < kLanes; ++i) v[i] = i < 8 && std::abs(logits[i]) < kInfinity ? logits[i] : kNone;
  const V all = V::load(v);
  const float best = all.largest();
  const int best_id = all.find(best);
  v[best_id] = kNone;
  const V others = V::load(v);
  const float second = others.largest();
  if (!(second > kNone)) return false;
  const float ratio = exp(V::broadcast(second - best)).first();
  ids[0] = best_id;
  ids[1] = others.find(second);
  weights[0] = 1.0f / (1.0f + ratio);
  weights[1] = ratio * weights[0];
  return true;
}

}  // namespace mixtral::simd
