// The byte layout of packed weights: the same on disk, in memory and for every instruction set.
//
// A matrix [rows, cols] is a sequence of panels of 32 rows (the last one padded with zeros); a panel is a sequence of
// slabs of 512 columns, the last one with as many tiles of 64 columns as it needs. In a slab stand first the scales,
// then the tiles: a kernel reads all of it once, in this order. A block is 32 columns of one row.
//
//   tiles of 8 bits  [2 halves of 16 rows][16 column quads][16 rows][4 columns] bytes, each 128 + q, q signed
//   tiles of 4 bits  [2 halves][8 column quads][16 rows][4 columns] bytes: the low nibble q is a column of the tile's
//                    first 32, the high nibble the same column of its second 32
//
//         scales of a slab                                           weight                           bits a weight
//   P8    s [32 rows] float32                                        s q, |q| <= 127                           8.06
//   P4    s [32 rows] float32, [blocks][32 rows] bytes m | z << 4    s m (q - z), m in 1..15,                  4.31
//                                                                    |m (q - z)| <= 127
//   Q8_0  d [blocks][32 rows] float16                                d q                                       8.50
//   Q4_0  d [blocks][32 rows] float16                                d (q - 8)                                 4.50
//   Q4_1  d, m [blocks][32 rows] float16 each                        d q + m                                   5.00
//   Q4_K  d, e [256 columns][32 rows] float16 each,                  d s q - e m                               4.63
//         s, m [blocks][32 rows] bytes each, in 0..63
//
// P4 and P8 are this library's own (simd/pack_rows.hpp makes them). The others are the weights of GGUF's types of these
// names, exactly, in another order.
//
// One 64-byte line is therefore one vector register with sixteen rows in its lanes: an operand of the byte products
// of AVX-512 and a row of a tile of AMX. No sum is ever taken across lanes.
//
// Experts' w1 and w3 are interleaved: panel p of the pair holds rows [16 p, 16 p + 16) of w1 in its first half and the
// same rows of w3 in its second, so that gate and up come out side by side.
#pragma once

#include "mixtral/core/dtype.hpp"
#include "mixtral/core/types.hpp"

namespace mixtral {

inline constexpr Index kPanelRows = 32, kHalfRows = 16;
inline constexpr Index kSlabCols = 512, kTileCols = 64, kBlockCols = 32;
inline constexpr Index kSlabBlocks = kSlabCols / kBlockCols;  // 16
inline constexpr Index kSlabTiles = kSlabCols / kTileCols;    // 8
inline constexpr Index kTileBlocks = kTileCols / kBlockCols;  // 2
inline constexpr Index kSuperTiles = 4;                       // 256 columns: those of one d and e of Q4_K

// What is not short is inlined: kernels' files use it, too, and share no function with the others.
struct PackedLayout {
  DType dtype = DType::kP4;
  Index cols = 0;

  static constexpr Index kRowScaleBytes = kPanelRows * static_cast<Index>(sizeof(float));
  static constexpr Index kHalfScaleBytes = kPanelRows * 2;  // float16 of all rows

  constexpr int bits() const noexcept { return dtype == DType::kP8 || dtype == DType::kQ8_0 ? 8 : 4; }
  constexpr Index tiles() const noexcept { return (cols + kTileCols - 1) / kTileCols; }
  constexpr Index slabs() const noexcept { return (cols + kSlabCols - 1) / kSlabCols; }
  // Tiles of slab s: 8, fewer in the last one.
  constexpr Index slab_tiles(Index s) const noexcept {
    const Index rest = tiles() - s * kSlabTiles;
    return rest < kSlabTiles ? rest : kSlabTiles;
  }
  constexpr Index tile_bytes() const noexcept { return kPanelRows * kTileCols * bits() / 8; }
  // Where the tiles of a slab begin.
  [[gnu::always_inline]] constexpr Index scale_bytes(Index n_tiles) const noexcept {
    const Index numbers = n_tiles * kTileBlocks * kPanelRows;  // a byte of each block
    switch (dtype) {
      case DType::kP8: return kRowScaleBytes;
      case DType::kP4: return kRowScaleBytes + numbers;
      case DType::kQ4_K: return half_rows(n_tiles) * kHalfScaleBytes + 2 * numbers;
      default: return half_rows(n_tiles) * kHalfScaleBytes;
    }
  }
  // Rows of float16 with which the scales of a slab begin.
  [[gnu::always_inline]] constexpr Index half_rows(Index n_tiles) const noexcept {
    switch (dtype) {
      case DType::kP4:
      case DType::kP8: return 0;
      case DType::kQ4_1: return 2 * n_tiles * kTileBlocks;
      case DType::kQ4_K: return 2 * supers(n_tiles);
      default: return n_tiles * kTileBlocks;
    }
  }
  // How many times 256 columns some tiles are.
  static constexpr Index supers(Index n_tiles) noexcept { return (n_tiles + kSuperTiles - 1) / kSuperTiles; }
  [[gnu::always_inline]] constexpr Index slab_bytes(Index n_tiles) const noexcept {
    return scale_bytes(n_tiles) + n_tiles * tile_bytes();
  }
  // Where slab s begins in its panel.
  constexpr Index slab_offset(Index s) const noexcept { return s * slab_bytes(kSlabTiles); }
  [[gnu::always_inline]] constexpr Index panel_bytes() const noexcept {
    return cols == 0 ? 0 : slab_offset(slabs() - 1) + slab_bytes(slab_tiles(slabs() - 1));
  }
};

constexpr Index panels_of(Index rows) noexcept { return (rows + kPanelRows - 1) / kPanelRows; }
// Panels of w1 and w3 interleaved, each with `rows` rows.
constexpr Index pair_panels_of(Index rows) noexcept { return (rows + kHalfRows - 1) / kHalfRows; }

}  // namespace mixtral
