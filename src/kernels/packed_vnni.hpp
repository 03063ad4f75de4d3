// Products with packed weights by vpdpbusd, on registers of 512 bits (vnni_zmm.hpp) or 256 (vnni_ymm.hpp). Included by
// files that are compiled for them, after <immintrin.h>, hence the unnamed namespace.
//
// `V` is the register, a VectorOps and:
//   Floats, kRows               its float32 type; its 32-bit lanes, one for each row of weights
//   widen, shuffle, ...         what needs an intrinsic of its width
//   dot(sum, w, x)              sum[kRows] += the four products of unsigned bytes w and signed bytes x in each lane
//   dot_quad(sum, w, x)         the same with four bytes in memory for all lanes
//   kQuadInProduct              whether dot_quad is one instruction
//   dot_pair(sum, w, x)         sum[kRows] += the two products of words in each lane; two words in memory
//   kFewTokens, kPairTokens, kSplitSums, kTileTokens   how many sums its register file has room for, see below
// and for packed_blocks.hpp:
//   load_halves, floats, to_floats, fma, store_floats   float16 from memory, one number, whole numbers as float32, ...
//   kFewBlockTokens, kPairBlockTokens, kBlockTokens     as the numbers above
#pragma once

#include "kernels/packed_panels.hpp"

namespace mixtral::kernels {
namespace {

// vpdpbusd multiplies unsigned by signed bytes: weights that are bytes carry 128, which is taken back as 128 * sum(x).
// No overflow: 512 * 255 * 127 < 2^24.
constexpr int kBias = 128;

// What a register of any width does without an intrinsic: the compiler's vectors have these operators.
template <int kBytes>
struct VectorOps {
  // Not aliases: gcc 12 would forget the attribute. Register: __m256i or __m512i.
  typedef long long Register __attribute__((vector_size(kBytes)));
  typedef std::uint8_t Bytes __attribute__((vector_size(kBytes)));
  typedef std::uint16_t Words __attribute__((vector_size(kBytes)));
  typedef std::uint32_t Longs __attribute__((vector_size(kBytes)));

  static Register zero() noexcept { return Register{}; }
  static Register set_8(int x) noexcept { return (Register)(Bytes{} + static_cast<std::uint8_t>(x)); }
  static Register set_16(int x) noexcept { return (Register)(Words{} + static_cast<std::uint16_t>(x)); }
  static Register set_32(int x) noexcept { return (Register)(Longs{} + static_cast<std::uint32_t>(x)); }
  static Register load(const void* p) noexcept {
    Register x;
    std::memcpy(&x, p, sizeof x);
    return x;
  }
  static void store(void* p, Register x) noexcept { std::memcpy(p, &x, sizeof x); }
  // The same four bytes in every lane.
  static Register broadcast(const void* four) noexcept {
    std::int32_t x;
    std::memcpy(&x, four, sizeof x);
    return set_32(x);
  }
  template <int N>
  static Register shift_left_16(Register x) noexcept {
    return (Register)((Words)x << N);
  }
  template <int N>
  static Register shift_right_16(Register x) noexcept {
    return (Register)((Words)x >> N);
  }
  template <int N>
  static Register shift_left_32(Register x) noexcept {
    return (Register)((Longs)x << N);
  }
  static Register bit_and(Register a, Register b) noexcept { return a & b; }
  static Register bit_or(Register a, Register b) noexcept { return a | b; }
  static Register add_8(Register a, Register b) noexcept { return (Register)((Bytes)a + (Bytes)b); }
  static Register add_32(Register a, Register b) noexcept { return (Register)((Longs)a + (Longs)b); }
  static Register sub_16(Register a, Register b) noexcept { return (Register)((Words)a - (Words)b); }
  static Register sub_32(Register a, Register b) noexcept { return (Register)((Longs)a - (Longs)b); }
  static Register times_low_16(Register a, Register b) noexcept { return (Register)((Words)a * (Words)b); }
};

// Bytes a, b, c, d of each 32-bit lane, for the byte shuffle of each 16 bytes.
inline __m128i bytes_of_lanes(char a, char b, char c, char d) noexcept {
  return _mm_setr_epi8(a, b, c, d, a + 4, b + 4, c + 4, d + 4, a + 8, b + 8, c + 8, d + 8, a + 12, b + 12, c + 12,
                       d + 12);
}

// Where kRows rows of a tile, from `row` on, begin: a line of 64 bytes has sixteen.
template <DType kType>
const std::byte* rows_of(const std::byte* tiles, Index tile, Index row) noexcept {
  return tiles + (2 * tile + row / kHalfRows) * Slab<kType>::kHalfTile + row % kHalfRows * 4;
}

// What makes nibbles of a tile weights, from `row` on: weight = q * m - m * z. One product of 16-bit lanes serves two
// bytes: q * m <= 225, so nothing is carried from the lower to the upper.
template <class V>
struct NibbleScale {
  using R = typename V::Register;
  NibbleScale(const Slab<DType::kP4>& slab, Index tile, Index row) noexcept {
    // Words: the first block's m | z << 4, the second block's.
    const R both =
        V::bit_or(V::widen(slab.mz(tile, 0, row)), V::template shift_left_32<16>(V::widen(slab.mz(tile, 1, row))));
    const R m = V::bit_and(both, V::set_16(15));
    low = V::shuffle(m, 0, 1, 0, 1);
    high = V::shuffle(V::template shift_left_16<12>(both), 2, 3, 2, 3);
    less = V::sub_16(V::zero(), V::times_low_16(m, V::template shift_right_16<4>(both)));
  }
  // q * m of the tile's first and second 32 columns.
  static R first(R line, R low) noexcept { return V::times_low_16(V::bit_and(line, V::set_8(0x0f)), low); }
  static R second(R line, R high) noexcept { return V::times_high_16(V::bit_and(line, V::set_8(0xf0)), high); }

  R low, high;  // m of the first block in all words; 4096 * m of the second
  R less;       // -m * z of the first block in the lower, of the second in the upper word
};

// dots [G][T][kRows] += G registers of rows, from `row` on, of one tile by T tokens. P8's sums lack the bias.
//   x [T][64]
// Never inlined: gcc 12 would keep sums of one T in memory for another's.
template <class V, DType kType, int G, int T>
[[gnu::noinline, gnu::flatten]] void add_rows(const Slab<kType>& slab, Index tile, Index row, const std::int8_t* x,
                                              const SlabMeta* meta, std::int32_t* dots) noexcept {
  using R = typename V::Register;
  constexpr int kSplit = G * T <= V::kSplitSums;  // a second set of sums: so few would wait for each other
  constexpr bool kWholeLine = G * V::kRows >= kHalfRows;
  R sums[1 + kSplit][G][T];
  const std::byte* lines[G];
  unroll<G>([&](auto g) {
    lines[g] = rows_of<kType>(slab.half(0, 0), tile, row + g * V::kRows);
    unroll<T>([&](auto t) {
      sums[0][g][t] = V::load(dots + (g * T + t) * V::kRows);
      if constexpr (kSplit == 1) sums[1][g][t] = V::zero();
    });
  });
  const auto load = [&](auto g, Index j) {
    if (kWholeLine ? g % (kHalfRows / V::kRows) == 0 : row % kHalfRows == 0) ask(lines[g] + j * 64);
    return V::load(lines[g] + j * 64);
  };
  if constexpr (kType == DType::kP4) {
    R low[G], high[G];
    unroll<G>([&](auto g) {
      const NibbleScale<V> scale(slab, tile, row + g * V::kRows);
      low[g] = scale.low, high[g] = scale.high;
      unroll<T>([&](auto t) { V::dot_pair(sums[0][g][t], scale.less, meta[t].block_sums + 2 * tile); });
    });
    unroll<8>([&](auto j) {
      unroll<G>([&](auto g) {
        const R line = load(g, j);
        const R first = NibbleScale<V>::first(line, low[g]), second = NibbleScale<V>::second(line, high[g]);
        unroll<T>([&](auto t) { V::dot_quad(sums[0][g][t], first, x + t * kTileCols + j * 4); });
        unroll<T>([&](auto t) { V::dot_quad(sums[kSplit][g][t], second, x + t * kTileCols + kBlockCols + j * 4); });
      });
    });
  } else {
    unroll<16>([&](auto j) {
      unroll<G>([&](auto g) {
        const R line = load(g, j);
        unroll<T>([&](auto t) { V::dot_quad(sums[j % 2 * kSplit][g][t], line, x + t * kTileCols + j * 4); });
      });
    });
  }
  unroll<G>([&](auto g) {
    unroll<T>([&](auto t) {
      R sum = sums[0][g][t];
      if constexpr (kSplit == 1) sum = V::add_32(sum, sums[1][g][t]);
      V::store(dots + (g * T + t) * V::kRows, sum);
    });
  });
}

// sums[kRows] = fma(dot - bias, scales_w * scale_x, sums).
template <class V>
[[gnu::always_inline]] inline void add_dot(typename V::Register dot, std::int32_t bias, typename V::Floats scales_w,
                                           float scale_x, float* sums) noexcept {
  V::add_scaled(V::sub_32(dot, V::set_32(bias)), scales_w, scale_x, sums);
}

// The same slab of P panels by a few tokens, whose weights go from memory through registers, each line once: up to
// kPairTokens tokens two registers of rows at a time, more one.  sums [P][T][32]
template <class V, DType kType, int P, int T>
void narrow(const Slabs<kType>& slabs, const SlabColumns& x, const SlabMeta* meta, float* sums) noexcept {
  constexpr int G = T <= V::kPairTokens ? 2 : 1;
  alignas(64) std::int32_t dots[P][kPanelRows * T] = {};
  for (Index tile = 0; tile < slabs.tiles; ++tile) {
    for (int p = 0; p < P; ++p) {
      for (Index row = 0; row < kPanelRows; row += G * V::kRows) {
        add_rows<V, kType, G, T>(slabs[p], tile, row, x.tile(tile), meta, dots[p] + row * T);
      }
    }
  }
  for (int p = 0; p < P; ++p) {
    for (Index row = 0; row < kPanelRows; row += V::kRows) {
      const auto scales = V::load_floats(slabs[p].scales() + row);
      for (Index t = 0; t < T; ++t) {
        add_dot<V>(V::load(dots[p] + row * T + t * V::kRows), kType == DType::kP8 ? kBias * meta[t].sum : 0, scales,
                   meta[t].scale, sums + (p * T + t) * kPanelRows + row);
      }
    }
  }
}

// kRows rows, from `row` on, of one tile in P8's order, each weight with `bias` added: [tile][half][16 quads][16
// rows][4 columns] bytes.
template <class V>
void expand_rows(const Slab<DType::kP4>& slab, Index tile, Index row, int bias, std::byte* out) noexcept {
  const NibbleScale<V> scale(slab, tile, row);
  const auto offset1 = V::add_8(V::shuffle(scale.less, 0, 0, 0, 0), V::set_8(bias)),
             offset2 = V::add_8(V::shuffle(scale.less, 2, 2, 2, 2), V::set_8(bias));
  const std::byte* lines = rows_of<DType::kP4>(slab.half(0, 0), tile, row);
  std::byte* to = const_cast<std::byte*>(rows_of<DType::kP8>(out, tile, row));
  for (Index j = 0; j < 8; ++j) {
    const auto line = V::load(lines + j * 64);
    V::store(to + j * 64, V::add_8(NibbleScale<V>::first(line, scale.low), offset1));
    V::store(to + (8 + j) * 64, V::add_8(NibbleScale<V>::second(line, scale.high), offset2));
  }
}
template <class V>
void expand_slab(const Slab<DType::kP4>& slab, std::byte* out) noexcept {
  for (Index tile = 0; tile < slab.tiles; ++tile) {
    for (Index row = 0; row < kPanelRows; row += V::kRows) {
      for (Index j = 0; j < 8 && row % kHalfRows == 0; ++j)
        ask(rows_of<DType::kP4>(slab.half(0, 0), tile, row) + j * 64);
      expand_rows<V>(slab, tile, row, kBias, out);
    }
  }
}

// The slab after the one that is multiplied, asked for line by line meanwhile.
struct Ahead {
  const std::byte *line, *end;
  void ask() noexcept {
    if (line >= end) return;
    prefetch_l2(line);
    line += 64;
  }
};
template <DType kType>
Ahead after(const Slab<kType>& slab) noexcept {
  return {slab.data + slab.bytes(), slab.data + 2 * slab.bytes()};
}

// Two registers of rows, from `row` on, by T <= kTileTokens tokens, a slab of bytes.  sums [T][32]
template <class V, int T>
[[gnu::noinline, gnu::flatten]] void multiply_rows(const std::byte* w, Index tiles, const float* scales, Index row,
                                                   const SlabColumns& x, const SlabMeta* meta, Ahead& ahead,
                                                   float* sums) noexcept {
  typename V::Register dots[2][T];
  unroll<T>([&](auto t) { dots[0][t] = dots[1][t] = V::zero(); });
  for (Index tile = 0; tile < tiles; ++tile) {
    const std::byte *first = rows_of<DType::kP8>(w, tile, row), *second = rows_of<DType::kP8>(w, tile, row + V::kRows);
    const std::int8_t* xs = x.tile(tile);
    for (Index j = 0; j < 16; ++j) {
      const auto w0 = V::load(first + j * 64), w1 = V::load(second + j * 64);
      ahead.ask();
      unroll<T>([&](auto t) {
        const std::int8_t* quad = xs + t * kTileCols + j * 4;
        // Loaded once for both, or twice as part of the products: half of each keeps loads and instructions balanced.
        if constexpr (V::kQuadInProduct && t % 2 == 0) {
          V::dot_quad(dots[0][t], w0, quad);
          V::dot_quad(dots[1][t], w1, quad);
        } else {
          const auto loaded = V::broadcast(quad);
          V::dot(dots[0][t], w0, loaded);
          V::dot(dots[1][t], w1, loaded);
        }
      });
    }
  }
  const typename V::Floats scales0 = V::load_floats(scales + row), scales1 = V::load_floats(scales + row + V::kRows);
  unroll<T>([&](auto t) {
    const SlabMeta& m = meta[t];
    const std::int32_t bias = kBias * m.sum;
    const float scale = m.scale;
    float* to = sums + t * kPanelRows + row;
    add_dot<V>(dots[0][t], bias, scales0, scale, to);
    add_dot<V>(dots[1][t], bias, scales1, scale, to + V::kRows);
  });
}

// A slab by any number of tokens.  w: its bytes
template <class V, DType kType>
void multiply_bytes(const Slab<kType>& slab, const std::byte* w, const SlabColumns& x, const SlabMeta* meta,
                    Index tokens, Ahead& ahead, float* sums) noexcept {
  for_groups<V::kTileTokens>(tokens, [&](Index t, auto n) {
    for (Index row = 0; row < kPanelRows; row += 2 * V::kRows) {
      multiply_rows<V, n>(w, slab.tiles, slab.scales(), row, x.from(t), meta + t, ahead, sums + t * kPanelRows);
    }
  });
}

// The slab's weights as bytes: P8's are, P4's are expanded into `room`.
template <class V, DType kType>
const std::byte* bytes_of(const Slab<kType>& slab, std::byte* room) noexcept {
  if constexpr (kType == DType::kP8) return slab.half(0, 0);
  if constexpr (kType == DType::kP4) expand_slab<V>(slab, room);
  return room;
}

template <class V, DType kType>
void packed_linear_vnni(const PackedLinearArgs& a) noexcept {
  if (a.tokens <= V::kFewTokens) {
    return with_constant<V::kFewTokens>(a.tokens, [&](auto n) {
      stream_panels<kType, n>(a, [&](auto p, const Slabs<kType>& slabs, const SlabColumns& x, const SlabMeta* meta,
                                     float* sums) { narrow<V, kType, p, n>(slabs, x, meta, sums); });
    });
  }
  // More: each slab becomes bytes in the L1 cache (16 KiB) once and is multiplied by all of them.
  alignas(64) std::byte room[kPanelRows * kSlabCols];
  multiply_panels<kType>(
      a, [&](const Slab<kType>& slab, const SlabColumns& x, const SlabMeta* meta, Index tokens, float* sums) {
        Ahead ahead = after(slab);
        multiply_bytes<V>(slab, bytes_of<V>(slab, room), x, meta, tokens, ahead, sums);
      });
}

}  // namespace
}  // namespace mixtral::kernels
