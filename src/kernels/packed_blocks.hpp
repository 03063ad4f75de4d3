// Products with weights that have a scale for each block of 32 columns (Q8_0, Q4_0, Q4_1, Q4_K), by products of bytes.
// Included by files that are compiled for them, after <immintrin.h>, hence the unnamed namespace. `V` is the register
// as in packed_vnni.hpp; kFewBlockTokens and kPairBlockTokens are what kFewTokens and kPairTokens are there.
#pragma once

#include "kernels/packed_vnni.hpp"

namespace mixtral::kernels {
namespace {

// What a code has that is stored as it is multiplied: 128 for signed bytes, 8 for Q4_0's nibbles.
template <DType kType>
inline constexpr int kCodeBias = kType == DType::kQ8_0   ? 128
                                 : kType == DType::kQ4_0 ? 8
                                                         : 0;

using simd::detail::kHasOffsets;

// ---- scales: kRows rows of block b of a slab, from `row` on ----

template <class V, DType kType>
const std::byte* scale_bytes(const Slab<kType>& slab, Index i, Index row) noexcept {
  return slab.data + i * PackedLayout::kHalfScaleBytes + row * 2;
}
// Q4_K's whole numbers: s of block b is number b, m is number `blocks` + b.
template <class V>
typename V::Floats block_numbers(const Slab<DType::kQ4_K>& slab, Index i, Index row) noexcept {
  const std::byte* numbers =
      slab.data + PackedLayout{DType::kQ4_K}.half_rows(slab.tiles) * PackedLayout::kHalfScaleBytes;
  return V::to_floats(V::widen(numbers + i * kPanelRows + row));
}

template <class V, DType kType>
typename V::Floats block_scale(const Slab<kType>& slab, Index b, Index row) noexcept {
  if constexpr (kType == DType::kQ4_K) {
    const Index super = b / (kSuperTiles * kTileBlocks);
    return V::load_halves(scale_bytes<V>(slab, super, row)) * block_numbers<V>(slab, b, row);
  } else {
    return V::load_halves(scale_bytes<V>(slab, b, row));
  }
}

template <class V, DType kType>
typename V::Floats block_offset(const Slab<kType>& slab, Index b, Index row) noexcept {
  const Index blocks = slab.tiles * kTileBlocks;
  if constexpr (kType == DType::kQ4_K) {
    const Index super = b / (kSuperTiles * kTileBlocks);
    const auto e = V::load_halves(scale_bytes<V>(slab, PackedLayout::supers(slab.tiles) + super, row));
    return -(e * block_numbers<V>(slab, blocks + b, row));
  } else {
    return V::load_halves(scale_bytes<V>(slab, blocks + b, row));
  }
}

// ---- what belongs to a slab's activations ----

// How the products of one block are summed. `bias`, in memory, is what the codes' bias adds up to, negative.
template <class V, int kBits>
struct BlockSum {
  using R = typename V::Register;
  static R begin(const std::int32_t* bias) noexcept { return V::broadcast(bias); }
  // x: the same four bytes in all lanes, or in memory.
  static void add(R& sum, R w, R x) noexcept { V::dot(sum, w, x); }
  static void add(R& sum, R w, const std::int8_t* x) noexcept { V::dot_quad(sum, w, x); }
  // The whole numbers.
  static R end(R sum, const std::int32_t* /*bias*/) noexcept { return sum; }
};

template <DType kType, int T>
struct BlockSums {
  explicit BlockSums(const SlabMeta* meta) noexcept {
    for (int t = 0; t < T; ++t) {
      for (Index b = 0; b < kSlabBlocks; ++b) {
        if constexpr (kHasOffsets<kType>) sum[t][b] = static_cast<float>(meta[t].block_sums[b]);
        bias[t][b] = -kCodeBias<kType> * meta[t].block_sums[b];
      }
    }
  }
  alignas(64) std::int32_t bias[T][kSlabBlocks];
  alignas(64) float sum[kHasOffsets<kType> ? T : 1][kSlabBlocks];
};

// ---- few tokens: weights go from memory through registers ----

// z [T][32] = the offsets' part, kRows rows from `row` on of a slab.
template <class V, DType kType, int T>
void begin_blocks(const Slab<kType>& slab, Index row, const BlockSums<kType, T>& sums, float* z) noexcept {
  typename V::Floats part[T];
  unroll<T>([&](auto t) { part[t] = typename V::Floats{}; });
  if constexpr (kHasOffsets<kType>) {
    for (Index b = 0; b < slab.tiles * kTileBlocks; ++b) {
      const auto offset = block_offset<V>(slab, b, row);
      unroll<T>([&](auto t) { part[t] = V::fma(offset, V::floats(sums.sum[t][b]), part[t]); });
    }
  }
  unroll<T>([&](auto t) { V::store_floats(z + t * kPanelRows + row, part[t]); });
}

// z [T][32] += G registers of rows, from `row` on, of one tile by T tokens.  x [T][64]
template <class V, DType kType, int G, int T>
[[gnu::noinline, gnu::flatten]] void add_blocks(const Slab<kType>& slab, Index tile, Index row, const std::int8_t* x,
                                                const BlockSums<kType, T>& sums, float* z) noexcept {
  constexpr int kBits = PackedLayout{kType}.bits();
  using Sum = BlockSum<V, kBits>;
  using R = typename V::Register;
  constexpr bool kWholeLine = G * V::kRows >= kHalfRows;
  const std::byte* lines[G];
  unroll<G>([&](auto g) { lines[g] = rows_of<kType>(slab.half(0, 0), tile, row + g * V::kRows); });
  const auto load = [&](auto g, Index j) {
    if (kWholeLine ? g % (kHalfRows / V::kRows) == 0 : row % kHalfRows == 0) ask(lines[g] + j * 64);
    return V::load(lines[g] + j * 64);
  };
  const auto begin = [&](R(&dots)[G][T], Index b) {
    unroll<G>([&](auto g) { unroll<T>([&](auto t) { dots[g][t] = Sum::begin(&sums.bias[t][b]); }); });
  };
  const auto end = [&](R(&dots)[G][T], Index b) {
    unroll<G>([&](auto g) {
      const Index r = row + g * V::kRows;
      const auto scale = block_scale<V>(slab, b, r);
      unroll<T>([&](auto t) {
        float* to = z + t * kPanelRows + r;
        V::store_floats(to, V::fma(V::to_floats(Sum::end(dots[g][t], &sums.bias[t][b])), scale, V::load_floats(to)));
      });
    });
  };
  const Index b = tile * kTileBlocks;
  if constexpr (kBits == 4) {
    R first[G][T], second[G][T];
    begin(first, b);
    begin(second, b + 1);
    unroll<8>([&](auto j) {
      unroll<G>([&](auto g) {
        const R line = load(g, j), mask = V::set_8(0x0f);
        const R low = V::bit_and(line, mask), high = V::bit_and(V::template shift_right_16<4>(line), mask);
        unroll<T>([&](auto t) { Sum::add(first[g][t], low, x + t * kTileCols + j * 4); });
        unroll<T>([&](auto t) { Sum::add(second[g][t], high, x + t * kTileCols + kBlockCols + j * 4); });
      });
    });
    end(first, b);
    end(second, b + 1);
  } else {
    unroll<2>([&](auto half) {
      R dots[G][T];
      begin(dots, b + half);
      unroll<8>([&](auto j) {
        unroll<G>([&](auto g) {
          const R line = load(g, half * 8 + j);
          unroll<T>([&](auto t) { Sum::add(dots[g][t], line, x + t * kTileCols + half * kBlockCols + j * 4); });
        });
      });
      end(dots, b + half);
    });
  }
}

// The same slab of P panels by a few tokens.  sums [P][T][32]
template <class V, DType kType, int P, int T>
void narrow_blocks(const Slabs<kType>& slabs, const SlabColumns& x, const SlabMeta* meta, float* sums) noexcept {
  constexpr int G = T <= V::kPairBlockTokens ? 2 : 1;
  alignas(64) float z[P][T * kPanelRows];
  const BlockSums<kType, T> block_sums(meta);
  for (int p = 0; p < P; ++p) {
    for (Index i = 0; i < PackedLayout{kType}.scale_bytes(slabs.tiles); i += 64) ask(slabs[p].data + i);
    for (Index row = 0; row < kPanelRows; row += V::kRows) begin_blocks<V>(slabs[p], row, block_sums, z[p]);
  }
  for (Index tile = 0; tile < slabs.tiles; ++tile) {
    for (int p = 0; p < P; ++p) {
      for (Index row = 0; row < kPanelRows; row += G * V::kRows) {
        add_blocks<V, kType, G, T>(slabs[p], tile, row, x.tile(tile), block_sums, z[p]);
      }
    }
  }
  for (int p = 0; p < P; ++p) {
    for (Index i = 0; i < T * kPanelRows; i += V::kRows) {
      float* to = sums + p * T * kPanelRows + i;
      V::store_floats(to, V::fma(V::load_floats(z[p] + i), V::floats(meta[i / kPanelRows].scale), V::load_floats(to)));
    }
  }
}

// ---- more tokens: a slab's codes as bytes and its scales as float32 wait in the L1 cache ----

struct WideSlab {
  const std::byte* codes;  // [tile][2 halves][16 quads][16 rows][4 columns]
  Index tiles;
  alignas(64) float scale[kSlabBlocks][kPanelRows];
  alignas(64) float offset[kSlabBlocks][kPanelRows];
};

// `room` for codes of 4 bits; those of 8 stay where they are.
template <class V, DType kType>
void widen_slab(const Slab<kType>& slab, std::byte* room, WideSlab& out) noexcept {
  out.codes = room;
  out.tiles = slab.tiles;
  for (Index b = 0; b < slab.tiles * kTileBlocks; ++b) {
    for (Index row = 0; row < kPanelRows; row += V::kRows) {
      V::store_floats(out.scale[b] + row, block_scale<V>(slab, b, row));
      if constexpr (kHasOffsets<kType>) V::store_floats(out.offset[b] + row, block_offset<V>(slab, b, row));
    }
  }
  if constexpr (PackedLayout{kType}.bits() == 8) {
    out.codes = slab.half(0, 0);
  } else {
    for (Index half = 0; half < slab.tiles * 2; ++half) {
      const std::byte* from = slab.half(0, half);
      std::byte* to = room + half * 2 * Slab<kType>::kHalfTile;
      for (Index i = 0; i < Slab<kType>::kHalfTile; i += static_cast<Index>(sizeof(typename V::Register))) {
        if (i % 64 == 0) ask(from + i);
        const auto line = V::load(from + i), mask = V::set_8(0x0f);
        V::store(to + i, V::bit_and(line, mask));
        V::store(to + Slab<kType>::kHalfTile + i, V::bit_and(V::template shift_right_16<4>(line), mask));
      }
    }
  }
}

// Two registers of rows, from `row` on, by T <= kBlockTokens tokens, whose sums of the slab stay in registers where
// there are enough.  sums [T][32]
template <class V, DType kType, int T>
[[gnu::noinline, gnu::flatten]] void multiply_blocks(const WideSlab& w, Index row, const SlabColumns& x,
                                                     const SlabMeta* meta, Ahead& ahead, float* sums) noexcept {
  constexpr int kBits = PackedLayout{kType}.bits();
  using Sum = BlockSum<V, kBits>;
  using R = typename V::Register;
  using F = typename V::Floats;
  const BlockSums<kType, T> block_sums(meta);
  F z[2][T];
  unroll<T>([&](auto t) { z[0][t] = z[1][t] = F{}; });
  if constexpr (kHasOffsets<kType>) {
    for (Index b = 0; b < w.tiles * kTileBlocks; ++b) {
      const F first = V::load_floats(w.offset[b] + row), second = V::load_floats(w.offset[b] + row + V::kRows);
      unroll<T>([&](auto t) {
        const F sum = V::floats(block_sums.sum[t][b]);
        z[0][t] = V::fma(first, sum, z[0][t]);
        z[1][t] = V::fma(second, sum, z[1][t]);
      });
    }
  }
  for (Index b = 0; b < w.tiles * kTileBlocks; ++b) {
    const Index tile = b / kTileBlocks, half = b % kTileBlocks;
    const std::byte* first = rows_of<DType::kP8>(w.codes, tile, row) + half * 8 * 64;
    const std::byte* second = rows_of<DType::kP8>(w.codes, tile, row + V::kRows) + half * 8 * 64;
    const std::int8_t* xs = x.tile(tile) + half * kBlockCols;
    R dots[2][T];
    unroll<T>([&](auto t) { dots[0][t] = dots[1][t] = Sum::begin(&block_sums.bias[t][b]); });
    unroll<8>([&](auto j) {
      const R w0 = V::load(first + j * 64), w1 = V::load(second + j * 64);
      unroll<T>([&](auto t) {
        const R quad = V::broadcast(xs + t * kTileCols + j * 4);
        Sum::add(dots[0][t], w0, quad);
        Sum::add(dots[1][t], w1, quad);
      });
    });
    for (int j = 0; j < 8; ++j) ahead.ask();
    const F scale0 = V::load_floats(w.scale[b] + row), scale1 = V::load_floats(w.scale[b] + row + V::kRows);
    unroll<T>([&](auto t) {
      const std::int32_t* bias = &block_sums.bias[t][b];
      z[0][t] = V::fma(V::to_floats(Sum::end(dots[0][t], bias)), scale0, z[0][t]);
      z[1][t] = V::fma(V::to_floats(Sum::end(dots[1][t], bias)), scale1, z[1][t]);
    });
  }
  unroll<T>([&](auto t) {
    const F scale = V::floats(meta[t].scale);
    float* to = sums + t * kPanelRows + row;
    V::store_floats(to, V::fma(z[0][t], scale, V::load_floats(to)));
    V::store_floats(to + V::kRows, V::fma(z[1][t], scale, V::load_floats(to + V::kRows)));
  });
}

template <class V, DType kType>
void packed_linear_blocks(const PackedLinearArgs& a) noexcept {
  constexpr int kBits = PackedLayout{kType}.bits();
  if (a.tokens <= V::kFewBlockTokens) {
    return with_constant<V::kFewBlockTokens>(a.tokens, [&](auto n) {
      stream_panels<kType, n>(a, [&](auto p, const Slabs<kType>& slabs, const SlabColumns& x, const SlabMeta* meta,
                                     float* sums) { narrow_blocks<V, kType, p, n>(slabs, x, meta, sums); });
    });
  }
  alignas(64) std::byte room[kBits == 4 ? kPanelRows * kSlabCols : 1];
  WideSlab wide;
  // Fewer at a time than of P4: the scales lie on the stack, too.
  multiply_panels<kType, 144>(
      a, [&](const Slab<kType>& slab, const SlabColumns& x, const SlabMeta* meta, Index tokens, float* sums) {
        Ahead ahead = after(slab);
        widen_slab<V>(slab, room, wide);
        for_groups<V::kBlockTokens>(tokens, [&](Index t, auto n) {
          for (Index row = 0; row < kPanelRows; row += 2 * V::kRows) {
            multiply_blocks<V, kType, n>(wide, row, x.from(t), meta + t, ahead, sums + t * kPanelRows);
          }
        });
      });
}

}  // namespace
}  // namespace mixtral::kernels
