// Products of bf16 pairs on a matrix unit (amx_tiles.hpp). Weights are its first operand as they lie: 16 rows of 32
// columns; activations its second: 16 pairs of 16 tokens, of PairOrder::kByPair.
//
// The order of every sum is fixed: 32 columns at a time, from zero, in the unit's own order, then added to the sum of
// those before. So a token's bits depend neither on the tokens beside it nor on how rows are split.
#pragma once

#include "kernels/packed_panels.hpp"

namespace mixtral::kernels {
namespace {

using simd::PairArgs;

constexpr Index kPairTile = 16, kPairTileCols = 32;
// Weights that stay in the L1 cache while tokens pass by (2 tiles of rows: 32 KiB), and tokens whose sums (16 KiB) wait
// in memory meanwhile.
constexpr Index kPairSlabCols = 512, kPairTokenTiles = 8;

// 16 rows of 32 columns of weights: where they lie, or copied beside zeros if not all are there.
struct WeightTile {
  WeightTile(const PairArgs& a, Index r, Index k) noexcept
      : from(a.w + r * a.w_row_bytes + k * 2), step(a.w_row_bytes) {
    const Index rows = a.rows - r, cols = a.cols - k;
    if (rows >= kPairTile && cols >= kPairTileCols) return;
    std::memset(room, 0, sizeof room);
    for (Index i = 0; i < rows && i < kPairTile; ++i) {
      std::memcpy(room + i * 64, from + i * step,
                  static_cast<std::size_t>(cols < kPairTileCols ? cols : kPairTileCols) * 2);
    }
    from = room, step = 64;
  }
  WeightTile(const WeightTile&) = delete;
  WeightTile& operator=(const WeightTile&) = delete;
  const std::byte* from;
  Index step;
  alignas(64) std::byte room[kPairTile * 64];
};

// Adds columns [k0, k1) to R tiles of rows by T tiles of tokens; first: nobody has used these weights before.
// sums [R][kPairTokenTiles][16 rows][16 tokens], at the first tile of tokens
template <int R, int T, class Tiles>
void pair_tiles(Tiles& unit, const PairArgs& a, Index r, Index t, Index k0, Index k1, bool first,
                float* sums) noexcept {
  const auto at = [&](auto c) { return sums + (c / T * kPairTokenTiles + c % T) * kPairTile * kPairTile; };
  unroll<R * T>([&](auto c) { unit.template load<c>(at(c), 64); });
  for (Index k = k0; k < k1; k += kPairTileCols) {
    if (first) {
      constexpr Index kAhead = 512;  // bytes of each row
      const std::byte* w = a.w + r * a.w_row_bytes + k * 2 + kAhead;
      for (Index i = 0; i < R * kPairTile; ++i) prefetch_l1(w + i * a.w_row_bytes);
    }
    const bf16* x = a.x + t * a.token_step + k / 2 * a.pair_step;
    const WeightTile w0(a, r, k);
    unit.template load<4>(w0.from, w0.step);
    unit.template load<6>(x, a.pair_step * 2);
    unit.template multiply_pairs<0, 4, 6>();
    if constexpr (T == 2) {
      unit.template load<7>(x + kPairTile * a.token_step, a.pair_step * 2);
      unit.template multiply_pairs<1, 4, 7>();
    }
    if constexpr (R == 2) {
      const WeightTile w1(a, r + kPairTile, k);
      unit.template load<5>(w1.from, w1.step);
      unit.template multiply_pairs<T, 5, 6>();
      if constexpr (T == 2) unit.template multiply_pairs<3, 5, 7>();
    }
  }
  unroll<R * T>([&](auto c) { unit.template store<c>(at(c)); });
}

template <class Tiles>
void linear_pairs_tiles(const PairArgs& a) noexcept {
  Tiles unit;
  alignas(64) float sums[2][kPairTokenTiles][kPairTile * kPairTile];
  constexpr Index kTokens = kPairTokenTiles * kPairTile;
  for (Index t0 = 0; t0 < a.tokens; t0 += kTokens) {
    const Index tokens = a.tokens - t0 < kTokens ? a.tokens - t0 : kTokens;
    for (Index r0 = 0; r0 < a.rows; r0 += 2 * kPairTile) {
      const Index rows = a.rows - r0 < 2 * kPairTile ? a.rows - r0 : 2 * kPairTile;
      std::memset(sums, 0, sizeof sums);
      for (Index k0 = 0; k0 < a.cols; k0 += kPairSlabCols) {
        const Index k1 = k0 + kPairSlabCols < a.cols ? k0 + kPairSlabCols : a.cols;
        for (Index t = 0; t < tokens; t += 2 * kPairTile) {
          with_constant<2>(rows > kPairTile ? 2 : 1, [&](auto r) {
            with_constant<2>(tokens - t > kPairTile ? 2 : 1, [&](auto n) {
              pair_tiles<r, n>(unit, a, r0, t0 + t, k0, k1, t0 + t == 0, sums[0][t / kPairTile]);
            });
          });
        }
      }
      for (Index t = 0; t < tokens; ++t) {
        float* y = a.y + (t0 + t) * a.y_stride + r0;
        for (Index r = 0; r < rows; ++r) {
          y[r] = sums[r / kPairTile][t / kPairTile][r % kPairTile * kPairTile + t % kPairTile];
        }
      }
    }
  }
}

}  // namespace
}  // namespace mixtral::kernels
