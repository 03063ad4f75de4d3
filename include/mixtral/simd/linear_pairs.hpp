// y[t, r] = sum over k of bf16(x[t, k]) * w[r, k], for bf16 weights: activations are rounded to bf16, so that CPUs with
// products of bf16 pairs (AVX-512 BF16, AMX-BF16) take two at a time. Rounds otherwise than simd::linear, hence only on
// request.
//
// The order of every sum is fixed, the same for one token and for many and for any block size. Of this kernel: lane l
// adds the pairs k = 2 l, 2 l + 1 (mod 32) in rising k, then the lanes are added in the tree of Lanes::sum. How a pair
// is added is the unit's, so the bits are the same for any batch, split and number of threads, but not for every CPU.
#pragma once

#include "mixtral/simd/linear_rows.hpp"

namespace mixtral::simd {

// Where rounded activations lie: whole tokens, one after the other, or one pair (k = 2 p, 2 p + 1) of all tokens after
// the other, as the second operand of a matrix unit.
enum class PairOrder { kByToken, kByPair };

struct PairArgs {
  const std::byte* w;  // bf16 [rows, cols], rows w_row_bytes apart, any alignment
  Index w_row_bytes;
  const bf16* x;  // k of token t at t * token_step + k / 2 * pair_step + k % 2; zeros up to a multiple of 32 columns
  Index token_step, pair_step;
  float* y;  // [tokens, rows]
  Index y_stride;
  Index rows;
  Index cols;
  Index tokens;
};

// n numbers, ties to even.
template <class Arch>
void round_bf16(const float* x, Index n, bf16* out) noexcept {
  for (Index i = 0; i < n; ++i) out[i] = to_bf16(x[i]);
}

// Plain arithmetic: both products in float32, the odd one first. What it offers, a CPU's own unit offers, too.
template <class Arch>
struct PlainPairs {
  static constexpr int kRows = 2, kTokens = 2;  // of a register tile
  // The even and the odd ones of 32 numbers.
  struct Operand {
    Lanes<Arch> of[2];
  };
  [[gnu::always_inline]] static Operand load(const bf16* p) noexcept {
    Operand out;
    Lanes<Arch>::load_pairs(p, out.of);
    return out;
  }
  [[gnu::always_inline]] static Lanes<Arch> add(const Lanes<Arch>& sum, const Operand& w, const Operand& x) noexcept {
    return fma(w.of[0], x.of[0], fma(w.of[1], x.of[1], sum));
  }
};

namespace detail {

inline constexpr Index kPair = 2 * kLanes;  // numbers of an operand
// Activations of a block (24 KiB), and rows by tokens whose lane sums wait in memory (24 KiB).
inline constexpr Index kPairNumbers = 12288, kPairRows = 32, kPairTokens = 12;

// Adds columns [k0, k0 + kc) to sums of R rows, `step` apart, by T tokens.  x [T][token_step], from k0 on; sums
// [R][kPairTokens][16]
template <class Arch, class Unit, int R, int T>
void pair_tile(const PairArgs& a, Index r0, Index step, Index k0, Index kc, const bf16* x, float* sums) noexcept {
  using V = Lanes<Arch>;
  const bf16* w[R];
  unroll<R>([&](auto r) { w[r] = reinterpret_cast<const bf16*>(a.w + (r0 + r * step) * a.w_row_bytes) + k0; });
  V acc[R][T];
  unroll<R>(
      [&](auto r) { unroll<T>([&](auto t) { acc[r][t] = V::load(sums + (r * step * kPairTokens + t) * kLanes); }); });
  Index k = 0;
  for (; k + kPair <= kc; k += kPair) {
    typename Unit::Operand ws[R];
    unroll<R>([&](auto r) {
      ask_ahead(w[r] + k);
      ws[r] = Unit::load(w[r] + k);
    });
    unroll<T>([&](auto t) {
      const auto xs = Unit::load(x + t * a.token_step + k);
      unroll<R>([&](auto r) { acc[r][t] = Unit::add(acc[r][t], ws[r], xs); });
    });
  }
  if (k < kc) {
    unroll<R>([&](auto r) {
      bf16 padded[kPair] = {};
      std::memcpy(padded, w[r] + k, static_cast<std::size_t>(kc - k) * sizeof(bf16));
      const auto ws = Unit::load(padded);
      unroll<T>([&](auto t) { acc[r][t] = Unit::add(acc[r][t], ws, Unit::load(x + t * a.token_step + k)); });
    });
  }
  unroll<R>([&](auto r) { unroll<T>([&](auto t) { acc[r][t].store(sums + (r * step * kPairTokens + t) * kLanes); }); });
}

}  // namespace detail

// Of PairOrder::kByToken.
template <class Arch, class Unit = PlainPairs<Arch>>
void linear_pairs(const PairArgs& a) noexcept {
  using namespace detail;
  alignas(64) float sums[kPairRows * kPairTokens * kLanes];
  for (Index r0 = 0; r0 < a.rows; r0 += kPairRows) {
    const Index rows = std::min(kPairRows, a.rows - r0);
    for (Index t0 = 0; t0 < a.tokens; t0 += kPairTokens) {
      const Index tokens = std::min(kPairTokens, a.tokens - t0);
      std::memset(sums, 0, sizeof sums);
      const Index most = kPairNumbers / tokens / kPair * kPair;
      for (Index k0 = 0; k0 < a.cols; k0 += most) {
        const Index kc = std::min(most, a.cols - k0);
        const bf16* x = a.x + t0 * a.token_step + k0;
        for (Index t = 0; t < tokens; t += Unit::kTokens) {
          with_constant<Unit::kTokens>(std::min<Index>(tokens - t, Unit::kTokens), [&](auto n) {
            // Streams are runs of rows, as in linear_rows.hpp.
            const auto tile = [&](auto count, Index r, Index step) {
              pair_tile<Arch, Unit, count, n>(a, r0 + r, step, k0, kc, x + t * a.token_step,
                                              sums + (r * kPairTokens + t) * kLanes);
            };
            const Index run = rows / Unit::kRows;
            for (Index r = 0; r < run; ++r) tile(std::integral_constant<int, Unit::kRows>{}, r, run);
            for (Index r = run * Unit::kRows; r < rows; ++r) tile(std::integral_constant<int, 1>{}, r, 0);
          });
        }
      }
      for (Index t = 0; t < tokens; ++t) {
        for (Index r = 0; r < rows; ++r) {
          a.y[(t0 + t) * a.y_stride + r0 + r] = Lanes<Arch>::load(sums + (r * kPairTokens + t) * kLanes).sum();
        }
      }
    }
  }
}

}  // namespace mixtral::simd
