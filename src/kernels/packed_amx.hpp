// Products with packed weights for many tokens on a matrix unit with eight tiles of 16 rows of 64 bytes (AMX-INT8). A
// slab's bytes lie as the unit wants its second operand: 16 column quads of 16 rows; activations as its first: 16
// tokens of 64 columns, 512 bytes apart. The sums are whole numbers, so the bits are those of every other kernel.
//
// `Tiles` is the unit, or code that does the same:
//   zero<C>()            tile C = 0
//   load<T>(from, step)  tile T = 16 rows of 64 bytes, `step` bytes apart
//   multiply<C, A, B>()  C[16][16] int32 += A[16][64] signed bytes * B[16 quads][16][4] unsigned bytes
//   store<C>(to)         16 rows of 16 int32, one after the other
#pragma once

#include "kernels/vnni_zmm.hpp"

namespace mixtral::kernels {
namespace {

constexpr Index kTileRows = 16;
// Fewer tokens go to the vector unit, whose tiles of tokens have any size.
constexpr Index kFewestTileTokens = 16;

// Sums [16 tokens][16 rows] of one half of the panel's rows.
void add_tile_sums(const std::int32_t* dots, const float* scales_w, const SlabMeta* meta, float* sums) noexcept {
  const __m512 scales = Zmm::load_floats(scales_w);
  for (Index t = 0; t < kTileRows; ++t) {
    add_dot<Zmm>(Zmm::load(dots + t * kTileRows), kBias * meta[t].sum, scales, meta[t].scale, sums + t * kPanelRows);
  }
}

// N times 16 tokens by one slab.  w [tile][half][16 quads][64], x [16 N][512]
template <int N, int Bits, class Tiles>
void multiply_tiles(Tiles& unit, const Slab<Bits>& slab, const std::byte* w, const std::int8_t* x, const SlabMeta* meta,
                    float* sums) noexcept {
  constexpr Index kTileBytes = kTileRows * kTileCols;
  unroll<2 * N>([&](auto c) { unit.template zero<c>(); });
  for (Index tile = 0; tile < slab.tiles; ++tile) {
    const std::int8_t* rows = x + tile * kTileCols;
    unit.template load<4>(rows, kSlabCols);
    unit.template load<6>(w + 2 * tile * kTileBytes, kTileCols);
    unit.template multiply<0, 4, 6>();
    unit.template load<7>(w + (2 * tile + 1) * kTileBytes, kTileCols);
    unit.template multiply<1, 4, 7>();
    if constexpr (N == 2) {
      unit.template load<5>(rows + kTileRows * kSlabCols, kSlabCols);
      unit.template multiply<2, 5, 6>();
      unit.template multiply<3, 5, 7>();
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
  if (a.tokens < kFewestTileTokens) return packed_linear_vnni<Zmm, Bits>(a);
  Tiles unit;
  alignas(64) std::byte room[kPanelRows * kSlabCols];
  multiply_panels<Bits>(
      a, [&](const Slab<Bits>& slab, const std::int8_t* x, const SlabMeta* meta, Index tokens, float* sums) {
        const std::byte* w = bytes_of<Zmm>(slab, room);
        Index t = 0;
        for (; t + 2 * kTileRows <= tokens; t += 2 * kTileRows) {
          multiply_tiles<2>(unit, slab, w, x + t * kSlabCols, meta + t, sums + t * kPanelRows);
        }
        if (t + kTileRows <= tokens) {
          multiply_tiles<1>(unit, slab, w, x + t * kSlabCols, meta + t, sums + t * kPanelRows);
          t += kTileRows;
        }
        multiply_bytes<Zmm>(slab, w, x + t * kSlabCols, meta + t, tokens - t, sums + t * kPanelRows);
      });
}

}  // namespace
}  // namespace mixtral::kernels
