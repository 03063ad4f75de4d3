// The byte layout of packed weights, P4 and P8: the same on disk, in memory and for every instruction set.
//
// A matrix [rows, cols] is a sequence of panels of 32 rows (the last one padded with zeros); a panel is a sequence of
// slabs of 512 columns, the last one with as many tiles of 64 columns as it needs. In a slab stand first the scales,
// then the tiles: a kernel reads all of it once, in this order.
//
//   P8  scale  [32 rows] float32
//       tiles  [2 halves of 16 rows][16 column quads][16 rows][4 columns] bytes, each 128 + v, v in [-127, 127]
//       weight = scale * v                                                    8.06 bits a weight
//   P4  scale  [32 rows] float32, then [blocks of 32 columns][32 rows] bytes m | z << 4
//       tiles  [2 halves][8 column quads][16 rows][4 columns] bytes: the low nibble is a column of the tile's first
//              32, the high nibble the same column of its second 32
//       weight = scale * m * (q - z), q the nibble, m in 1..15, |m * (q - z)| <= 127            4.31 bits
//
// One 64-byte line is therefore one vector register with sixteen rows in its lanes: an operand of the byte products
// of AVX-512 and a row of a tile of AMX. No sum is ever taken across lanes.
//
// Experts' w1 and w3 are interleaved: panel p of the pair holds rows [16 p, 16 p + 16) of w1 in its first half and the
// same rows of w3 in its second, so that gate and up come out side by side.
#pragma once

#include "mixtral/core/types.hpp"

namespace mixtral {

inline constexpr Index kPanelRows = 32, kHalfRows = 16;
inline constexpr Index kSlabCols = 512, kTileCols = 64, kBlockCols = 32;
inline constexpr Index kSlabBlocks = kSlabCols / kBlockCols;  // 16
inline constexpr Index kSlabTiles = kSlabCols / kTileCols;    // 8

struct PackedLayout {
  int bits = 4;  // 4 or 8
  Index cols = 0;

  static constexpr Index kRowScaleBytes = kPanelRows * static_cast<Index>(sizeof(float));

  constexpr Index tiles() const noexcept { return (cols + kTileCols - 1) / kTileCols; }
  constexpr Index slabs() const noexcept { return (cols + kSlabCols - 1) / kSlabCols; }
  // Tiles of slab s: 8, fewer in the last one.
  constexpr Index slab_tiles(Index s) const noexcept {
    const Index rest = tiles() - s * kSlabTiles;
    return rest < kSlabTiles ? rest : kSlabTiles;
  }
  constexpr Index tile_bytes() const noexcept { return kPanelRows * kTileCols * bits / 8; }
  // Multipliers and zero points of one tile: P4 only.
  constexpr Index tile_scale_bytes() const noexcept { return bits == 4 ? kPanelRows * kTileCols / kBlockCols : 0; }
  // Where the tiles of a slab begin.
  constexpr Index scale_bytes(Index n_tiles) const noexcept { return kRowScaleBytes + n_tiles * tile_scale_bytes(); }
  constexpr Index slab_bytes(Index n_tiles) const noexcept { return scale_bytes(n_tiles) + n_tiles * tile_bytes(); }
  // Where slab s begins in its panel.
  constexpr Index slab_offset(Index s) const noexcept { return s * slab_bytes(kSlabTiles); }
  constexpr Index panel_bytes() const noexcept {
    return cols == 0 ? 0 : slab_offset(slabs() - 1) + slab_bytes(slab_tiles(slabs() - 1));
  }
};

constexpr Index panels_of(Index rows) noexcept { return (rows + kPanelRows - 1) / kPanelRows; }
// Panels of w1 and w3 interleaved, each with `rows` rows.
constexpr Index pair_panels_of(Index rows) noexcept { return (rows + kHalfRows - 1) / kHalfRows; }

}  // namespace mixtral
