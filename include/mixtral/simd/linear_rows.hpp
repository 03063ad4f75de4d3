// y[t, r] = sum over k of x[t, k] * w[r, k], for weights of any 16- or 32-bit float type.
//
// The order of every sum is fixed and the same for one token and for many, for any block size and any
// architecture: lane l adds the products of k = l (mod 16) in rising k, then the lanes are added in the tree
// of Lanes::sum. Batches, prompt splits and threads therefore cannot change a bit.
#pragma once

#include <algorithm>

#include "mixtral/simd/lanes.hpp"

namespace mixtral::simd {

struct LinearArgs {
  const std::byte* w;  // [rows, cols], rows w_row_bytes apart, any alignment
  Index w_row_bytes;
  const float* x;  // [tokens, cols]
  Index x_stride;
  float* y;  // [tokens, rows]
  Index y_stride;
  Index rows;
  Index cols;
  Index tokens;
};

// The register tile of many tokens: one part of its sums (a register each) and one operand of each kind must
// fit into the registers. AVX-512: 24 + 4 + 1 of 32. AVX2: 12 + 3 + 1 of 16. At least 8 sums hide the latency of
// the multiply-add (4 cycles, 2 a cycle). Up to kNarrowTokens tokens stream the weights instead, with as many
// whole Lanes of sums as fit beside the tokens' Lanes (AVX-512: 24; AVX2: 4, of two registers each).
template <class Arch, class = void>
struct Blocking {
  static constexpr int kTileRows = 4, kTileTokens = 3, kNarrowTokens = 2;
  static constexpr unsigned kNarrowSums = 4;
};
#if XSIMD_WITH_AVX512F
template <class Arch>
struct Blocking<Arch, std::enable_if_t<std::is_base_of_v<xsimd::avx512f, Arch>>> {
  static constexpr int kTileRows = 4, kTileTokens = 6, kNarrowTokens = 4;
  static constexpr unsigned kNarrowSums = 24;
};
#endif

// How far ahead kernels of all kinds ask for weights that stream from memory: bytes. Measured; bench/README.md has
// others.
inline constexpr Index kAheadL1 = 1024, kAheadL2 = 4096;

namespace detail {

// For each line of 64 bytes.
[[gnu::always_inline]] inline void ask_ahead(const void* line) noexcept {
  __builtin_prefetch(static_cast<const std::byte*>(line) + kAheadL2, 0, 2);
  __builtin_prefetch(static_cast<const std::byte*>(line) + kAheadL1, 0, 3);
}

template <class W>
const W* row_of(const LinearArgs& a, Index r) noexcept {
  return reinterpret_cast<const W*>(a.w + r * a.w_row_bytes);
}

// R rows, `step` apart, for T tokens, all of k, in registers.
template <class Arch, class W, int R, int T>
void narrow_block(const LinearArgs& a, Index r0, Index step) noexcept {
  using V = Lanes<Arch>;
  const W* w[R];
  unroll<R>([&](auto r) { w[r] = row_of<W>(a, r0 + r * step); });
  V acc[R][T];
  unroll<R>([&](auto r) { unroll<T>([&](auto t) { acc[r][t] = V::zero(); }); });
  Index k = 0;
  constexpr int kParts = V::template kLineLanes<W>;  // of a line
  for (; k + kParts * kLanes <= a.cols; k += kParts * kLanes) {
    V xs[T][kParts];
    unroll<T>(
        [&](auto t) { unroll<kParts>([&](auto i) { xs[t][i] = V::load(a.x + t * a.x_stride + k + i * kLanes); }); });
    unroll<R>([&](auto r) {
      ask_ahead(w[r] + k);
      V ws[kParts];
      V::load_line(w[r] + k, ws);
      unroll<kParts>([&](auto i) { unroll<T>([&](auto t) { acc[r][t] = fma(ws[i], xs[t][i], acc[r][t]); }); });
    });
  }
  for (; k + kLanes <= a.cols; k += kLanes) {
    V xs[T];
    unroll<T>([&](auto t) { xs[t] = V::load(a.x + t * a.x_stride + k); });
    unroll<R>([&](auto r) {
      const V ws = V::load(w[r] + k);
      unroll<T>([&](auto t) { acc[r][t] = fma(ws, xs[t], acc[r][t]); });
    });
  }
  if (k < a.cols) {
    V xs[T];
    unroll<T>([&](auto t) { xs[t] = V::load_first(a.x + t * a.x_stride + k, a.cols - k); });
    unroll<R>([&](auto r) {
      const V ws = V::load_first(w[r] + k, a.cols - k);
      unroll<T>([&](auto t) { acc[r][t] = fma(ws, xs[t], acc[r][t]); });
    });
  }
  unroll<R>([&](auto r) { unroll<T>([&](auto t) { a.y[t * a.y_stride + r0 + r * step] = acc[r][t].sum(); }); });
}

// A few tokens: the weights stream from memory once, several rows at a time, which gives independent sums and several
// memory streams. Each stream is a run of rows, so that what it asks for past the end of a row is what it needs next.
template <class Arch, class W, int T>
void narrow(const LinearArgs& a) noexcept {
  constexpr int R = static_cast<int>(std::bit_floor(std::min(4u, Blocking<Arch>::kNarrowSums / T)));
  const Index run = a.rows / R;
  for (Index i = 0; i < run; ++i) narrow_block<Arch, W, R, T>(a, i, run);
  for (Index r = run * R; r < a.rows; ++r) narrow_block<Arch, W, 1, T>(a, r, 0);
}

// Columns that are widened and multiplied at a time, and tokens whose sums are kept meanwhile: 8 rows * 512
// floats of weights (16 KiB) and 6 tokens * 512 (12 KiB) stay in the L1 cache.
inline constexpr Index kWidenedCols = 512, kWidenedRows = 8, kWidenedTokens = 48;

// Adds the products of kc (a multiple of 16) columns to R x T sums kept in memory, R panel rows by T tokens. One
// part of the Lanes after the other: with half Lanes in a register, AVX2 has room for a tile of 12 sums.
template <class Arch, int R, int T>
void tile(const float* w, const float* x, Index x_stride, Index kc, float* sums) noexcept {
  using Part = typename Lanes<Arch>::Part;
  unroll<Lanes<Arch>::kParts>([&](auto part) {
    constexpr Index kOffset = part * Part::size;
    typename Part::type acc[R][T];
    unroll<R>([&](auto r) {
      unroll<T>([&](auto t) { acc[r][t] = Part::load(sums + (t * kWidenedRows + r) * kLanes + kOffset); });
    });
    for (Index k = kOffset; k < kc; k += kLanes) {
      typename Part::type ws[R];
      unroll<R>([&](auto r) { ws[r] = Part::load(w + r * kWidenedCols + k); });
      unroll<T>([&](auto t) {
        const auto xs = Part::load(x + t * x_stride + k);
        unroll<R>([&](auto r) { acc[r][t] = Part::fma(ws[r], xs, acc[r][t]); });
      });
    }
    unroll<R>([&](auto r) {
      unroll<T>([&](auto t) { Part::store(acc[r][t], sums + (t * kWidenedRows + r) * kLanes + kOffset); });
    });
  });
}

// Widens rows [r0, r0 + n) of columns [k0, k0 + kc) into panel rows; missing rows are zero.
template <class Arch, class W>
void widen_panel(const LinearArgs& a, Index r0, Index n, Index k0, Index kc, float* panel) noexcept {
  using V = Lanes<Arch>;
  for (Index r = 0; r < kWidenedRows; ++r) {
    const W* w = row_of<W>(a, r0 + (r < n ? r : 0)) + k0;
    for (Index k = 0; k < kc; k += kLanes) V::load(w + k).store(panel + r * kWidenedCols + k);
  }
}

// All panel rows by T tokens.
template <class Arch, int T>
void multiply_tokens(const LinearArgs& a, const float* panel, Index t, Index k0, Index kc, float* sums) noexcept {
  constexpr int R = Blocking<Arch>::kTileRows;
  const float* x = a.x + t * a.x_stride + k0;
  for (Index r = 0; r < kWidenedRows; r += R) {
    tile<Arch, R, T>(panel + r * kWidenedCols, x, a.x_stride, kc, sums + r * kLanes);
  }
}

// What is left of the tokens, fewer than T + 1 of them, as one tile.
template <class Arch, int T>
void multiply_rest(const LinearArgs& a, const float* panel, Index t, Index rest, Index k0, Index kc,
                   float* sums) noexcept {
  if constexpr (T > 0) {
    if (rest == T) return multiply_tokens<Arch, T>(a, panel, t, k0, kc, sums);
    multiply_rest<Arch, T - 1>(a, panel, t, rest, k0, kc, sums);
  }
}

// Adds to the sums [tokens][kWidenedRows][16] what kc columns contribute.
template <class Arch>
void multiply_panel(const LinearArgs& a, const float* panel, Index t0, Index tokens, Index k0, Index kc,
                    float* sums) noexcept {
  constexpr int T = Blocking<Arch>::kTileTokens;
  Index t = 0;
  for (; t + T <= tokens; t += T) multiply_tokens<Arch, T>(a, panel, t0 + t, k0, kc, sums + t * kWidenedRows * kLanes);
  multiply_rest<Arch, T - 1>(a, panel, t0 + t, tokens - t, k0, kc, sums + t * kWidenedRows * kLanes);
}

// Asks for the weights of the next panel while this one is multiplied: rows are far apart and a panel takes
// only 1 KiB of each, too little for the hardware to see a stream.
template <class Arch, class W>
void prefetch_panel(const LinearArgs& a, Index r0, Index n, Index k0, Index kc) noexcept {
  constexpr Index kLineElements = 64 / static_cast<Index>(sizeof(W));
  for (Index r = r0; r < r0 + n; ++r) {
    for (Index k = k0; k < k0 + kc; k += kLineElements) __builtin_prefetch(row_of<W>(a, r) + k, 0, 2);
  }
}

// What is left of k when cols is no multiple of 16, and the sums of the lanes.
template <class Arch, class W>
void finish_panel(const LinearArgs& a, Index r0, Index n, Index t0, Index tokens, const float* sums) noexcept {
  using V = Lanes<Arch>;
  static_assert(kWidenedRows == 8);
  const Index k = a.cols / kLanes * kLanes;
  for (Index t = 0; t < tokens; ++t) {
    if (n == 8 && k == a.cols) {
      V::sum_each_of_8(sums + t * 8 * kLanes, a.y + (t0 + t) * a.y_stride + r0);
      continue;
    }
    for (Index r = 0; r < n; ++r) {
      V acc = V::load(sums + (t * kWidenedRows + r) * kLanes);
      if (k < a.cols) {
        const V xs = V::load_first(a.x + (t0 + t) * a.x_stride + k, a.cols - k);
        acc = fma(V::load_first(row_of<W>(a, r0 + r) + k, a.cols - k), xs, acc);
      }
      a.y[(t0 + t) * a.y_stride + r0 + r] = acc.sum();
    }
  }
}

template <class Arch, class W>
void wide(const LinearArgs& a) noexcept {
  alignas(64) float panel[kWidenedRows * kWidenedCols];
  alignas(64) float sums[kWidenedTokens * kWidenedRows * kLanes];
  const Index whole = a.cols / kLanes * kLanes;
  for (Index t0 = 0; t0 < a.tokens; t0 += kWidenedTokens) {
    const Index tokens = std::min(kWidenedTokens, a.tokens - t0);
    for (Index r0 = 0; r0 < a.rows; r0 += kWidenedRows) {
      const Index n = std::min(kWidenedRows, a.rows - r0);
      std::memset(sums, 0, static_cast<std::size_t>(tokens * kWidenedRows * kLanes) * sizeof(float));
      for (Index k0 = 0; k0 < whole; k0 += kWidenedCols) {
        const Index kc = std::min(kWidenedCols, whole - k0);
        widen_panel<Arch, W>(a, r0, n, k0, kc, panel);
        if (k0 + kc < whole) {
          prefetch_panel<Arch, W>(a, r0, n, k0 + kc, std::min(kWidenedCols, whole - k0 - kc));
        } else if (r0 + n < a.rows) {
          prefetch_panel<Arch, W>(a, r0 + n, std::min(kWidenedRows, a.rows - r0 - n), 0, std::min(kWidenedCols, whole));
        }
        multiply_panel<Arch>(a, panel, t0, tokens, k0, kc, sums);
      }
      finish_panel<Arch, W>(a, r0, n, t0, tokens, sums);
    }
  }
}

}  // namespace detail

template <class Arch, class W>
void linear(const LinearArgs& a) noexcept {
  if (a.tokens > Blocking<Arch>::kNarrowTokens) return detail::wide<Arch, W>(a);
  switch (a.tokens) {
    case 1: return detail::narrow<Arch, W, 1>(a);
    case 2: return detail::narrow<Arch, W, 2>(a);
    case 3: return detail::narrow<Arch, W, 3>(a);
    case 4: return detail::narrow<Arch, W, 4>(a);
    default: return;  // no tokens
  }
}

}  // namespace mixtral::simd
