// Products with packed weights for many tokens on a matrix unit (amx_tiles.hpp). A slab's bytes lie as the unit wants
// its second operand: 16 column quads of 16 rows; activations as its first: 16 tokens of 64 columns, 512 bytes apart.
// The sums are whole numbers, so the bits are those of every other kernel.
#pragma once

#include "kernels/vnni_zmm.hpp"

namespace mixtral::kernels {
namespace {

constexpr Index kTileRows = 16;
// Fewer tokens fill no tile.
constexpr Index kFewestTileTokens = 16;

// Sums [16 tokens][16 rows] of one half of the panel's rows.
void add_tile_sums(const std::int32_t* dots, const float* scales_w, const SlabMeta* meta, float* sums) noexcept {
  const __m512 scales = Zmm::load_floats(scales_w);
  for (Index t = 0; t < kTileRows; ++t) {
    add_dot<Zmm>(Zmm::load(dots + t * kTileRows), kBias * meta[t].sum, scales, meta[t].scale, sums + t * kPanelRows);
  }
}

// N times 16 tokens by one slab; lines: to ask for in each tile.  w [tile][half][16 quads][64], x [16 N][512]
template <int N, int Bits, class Tiles>
void multiply_tiles(Tiles& unit, const Slab<Bits>& slab, const std::byte* w, const std::int8_t* x, const SlabMeta* meta,
                    Ahead& ahead, Index lines, float* sums) noexcept {
  constexpr Index kTileBytes = kTileRows * kTileCols;
  unroll<2 * N>([&](auto c) { unit.template zero<c>(); });
  for (Index tile = 0; tile < slab.tiles; ++tile) {
    const std::int8_t* rows = x + tile * kTileCols;
    for (Index i = 0; i < lines; ++i) ahead.ask();
    unit.template load<4>(rows, kSlabCols);
    unit.template load<6>(w + 2 * tile * kTileBytes, kTileCols);
    unit.template multiply_bytes<0, 4, 6>();
    unit.template load<7>(w + (2 * tile + 1) * kTileBytes, kTileCols);
    unit.template multiply_bytes<1, 4, 7>();
    if constexpr (N == 2) {
      unit.template load<5>(rows + kTileRows * kSlabCols, kSlabCols);
      unit.template multiply_bytes<2, 5, 6>();
      unit.template multiply_bytes<3, 5, 7>();
    }
  }
  alignas(64) std::int32_t dots[2 * N][kTileRows * kTileRows];
  unroll<2 * N>([&](auto c) { unit.template store<c>(dots[c]); });
  unroll<2 * N>([&](auto c) {
    const Index t = c / 2 * kTileRows, h = c % 2;
    add_tile_sums(dots[c], slab.scales() + h * kHalfRows, meta + t, sums + t * kPanelRows + h * kHalfRows);
  });
}

template <int Bits, class Tiles>
void packed_linear_tiles(const PackedLinearArgs& a) noexcept {
  if (a.tokens < kFewestTileTokens || a.tokens < Tiles::fewest_tokens()) return packed_linear_vnni<Zmm, Bits>(a);
  Tiles unit;
  alignas(64) std::byte room[kPanelRows * kSlabCols];
  multiply_panels<Bits>(
      a, [&](const Slab<Bits>& slab, const std::int8_t* x, const SlabMeta* meta, Index tokens, float* sums) {
        const std::byte* w = bytes_of<Zmm>(slab, room);
        // The next slab is asked for meanwhile, evenly.
        Ahead ahead = after(slab);
        const Index steps = slab.tiles * ((tokens + 2 * kTileRows - 1) / (2 * kTileRows));
        const Index lines = (slab.bytes() / 64 + steps - 1) / steps;
        Index t = 0;
        const auto tiles = [&](auto n) {
          multiply_tiles<n>(unit, slab, w, x + t * kSlabCols, meta + t, ahead, lines, sums + t * kPanelRows);
          t += n * kTileRows;
        };
        while (t + 2 * kTileRows <= tokens) tiles(std::integral_constant<int, 2>{});
        if (t + kTileRows <= tokens) tiles(std::integral_constant<int, 1>{});
        multiply_bytes<Zmm>(slab, w, x + t * kSlabCols, meta + t, tokens - t, ahead, sums + t * kPanelRows);
      });
}

}  // namespace
}  // namespace mixtral::kernels
