// Products with packed weights on AVX-512 VNNI (Ice Lake, Zen 4 and later). Included by files that are compiled for it,
// after <immintrin.h>, hence the unnamed namespace.
#pragma once

#include "kernels/packed_panels.hpp"

namespace mixtral::kernels {
namespace {

// vpdpbusd multiplies unsigned by signed bytes: weights carry 128, which is taken back as 128 * sum(x). No overflow:
// 512 * 255 * 127 < 2^24.
constexpr int kBias = 128;
// Up to so many tokens weights are expanded in registers, each use of a line being its only one; for more they are
// expanded into the L1 cache once (16 KiB) and multiplied in register tiles.
constexpr int kNarrowTokens = 8;
// 2 halves of rows * 12 tokens = 24 sums, 2 operands and a broadcast: 27 of 32 registers; enough sums to hide the
// latency of vpdpbusd (5 cycles, 2 a cycle).
constexpr int kTileTokens = 12;
__m512i load(const void* p) noexcept { return _mm512_loadu_si512(p); }

// A sum of products in a register.
struct Sum {
  __m512i lanes = __m512i{};
  void add(__m512i weights, __m512i activations) noexcept { lanes = _mm512_dpbusd_epi32(lanes, weights, activations); }
  // The same four activations for all lanes, as an operand in memory: one instruction less.
  void add_quad(__m512i weights, const std::int8_t* x) noexcept {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(lanes) : "v"(weights), "m"(*reinterpret_cast<const std::int32_t*>(x)));
  }
};

// Four activations in every lane.
__m512i broadcast(const std::int8_t* x) noexcept {
  std::int32_t quad;
  std::memcpy(&quad, x, sizeof quad);
  return _mm512_set1_epi32(quad);
}

// What makes sixteen rows' nibbles of one block of 32 columns bytes: byte = q * m + (128 - m * z).
struct BlockScale {
  __m512i m;       // in every 16-bit lane
  __m512i offset;  // in every byte
};

BlockScale block_scale(const std::byte* mz) noexcept {
  const __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(mz)));
  const __m512i m = _mm512_and_si512(both, _mm512_set1_epi32(15));
  const __m512i offset = _mm512_sub_epi32(_mm512_set1_epi32(kBias), _mm512_mullo_epi16(m, _mm512_srli_epi32(both, 4)));
  const __m512i low_byte = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
  return {_mm512_or_si512(m, _mm512_slli_epi32(m, 16)), _mm512_shuffle_epi8(offset, low_byte)};
}

// One product of 16-bit lanes serves two bytes: q * m <= 225, so nothing is carried from the lower to the upper.
__m512i expand(__m512i nibbles, const BlockScale& s) noexcept {
  return _mm512_add_epi8(_mm512_mullo_epi16(nibbles, s.m), s.offset);
}
__m512i low_nibbles(__m512i line) noexcept { return _mm512_and_si512(line, _mm512_set1_epi8(15)); }
__m512i high_nibbles(__m512i line) noexcept { return low_nibbles(_mm512_srli_epi16(line, 4)); }

// sum[16] = fma(dot, scale_w * scale_x, sum): half the rows of one token. By value, as all sums in registers here: gcc
// 12 keeps an array whose address is taken in memory, too.
[[gnu::always_inline]] inline void add_dot(__m512i dot, std::int32_t bias, __m512 scale_w, float scale_x,
                                           float* sum) noexcept {
  const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(dot, _mm512_set1_epi32(bias)));
  const __m512 scale = _mm512_mul_ps(scale_w, _mm512_set1_ps(scale_x));
  _mm512_store_ps(sum, _mm512_fmadd_ps(exact, scale, _mm512_load_ps(sum)));
}

template <int Bits>
__m512 scale_of(const Slab<Bits>& slab, int h) noexcept {
  return _mm512_loadu_ps(slab.scales() + h * kHalfRows);
}

// For a few tokens, without the weights' bytes: dot = sum over blocks of m * (sum of q * x - z * sum of
// x). Half the instructions a line: the more there are, the fewer lines are asked for at a time.
template <class Cpu, int T>
[[gnu::always_inline]] inline void add_tile_by_blocks(const Slab<4>& slab, Index tile, const std::int8_t* x,
                                                      const SlabMeta* meta, Sum (&dots)[2][T]) noexcept {
  unroll<2>([&](auto h) {
    const std::byte* lines = slab.half(tile, h);
    Sum first[T], second[T];
    unroll<8>([&](auto j) {
      const __m512i line = load(lines + j * 64);
      Cpu::ask(lines + j * 64);
      const __m512i low = low_nibbles(line), high = high_nibbles(line);
      unroll<T>([&](auto t) {
        first[t].add_quad(low, x + t * kSlabCols + j * 4);
        second[t].add_quad(high, x + t * kSlabCols + kBlockCols + j * 4);
      });
    });
    const auto bytes = [&](int b) {
      return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(slab.mz(tile, b, h * kHalfRows))));
    };
    const __m512i mz0 = bytes(0), mz1 = bytes(1), fifteen = _mm512_set1_epi32(15);
    const __m512i m0 = _mm512_and_si512(mz0, fifteen), m1 = _mm512_and_si512(mz1, fifteen);
    const __m512i zeros = _mm512_or_si512(_mm512_mullo_epi16(m0, _mm512_srli_epi32(mz0, 4)),
                                          _mm512_slli_epi32(_mm512_mullo_epi16(m1, _mm512_srli_epi32(mz1, 4)), 16));
    unroll<T>([&](auto t) {
      std::int32_t pair;
      std::memcpy(&pair, meta[t].block_sums + 2 * tile, sizeof pair);
      const __m512i both =
          _mm512_add_epi32(_mm512_mullo_epi32(first[t].lanes, m0), _mm512_mullo_epi32(second[t].lanes, m1));
      const __m512i less = _mm512_madd_epi16(zeros, _mm512_set1_epi32(pair));
      dots[h][t].lanes = _mm512_add_epi32(dots[h][t].lanes, _mm512_sub_epi32(both, less));
    });
  });
}

// One tile by T tokens.  x [T][512], from the tile's columns on
template <class Cpu, int Bits, int T>
[[gnu::always_inline]] inline void add_tile(const Slab<Bits>& slab, Index tile, const std::int8_t* x,
                                            Sum (&dots)[2][T]) noexcept {
  const std::byte* lines = slab.half(tile, 0);
  if constexpr (Bits == 4) {
    BlockScale scale[2][2];
    unroll<2>([&](auto h) { unroll<2>([&](auto b) { scale[h][b] = block_scale(slab.mz(tile, b, h * kHalfRows)); }); });
    for (Index j = 0; j < 8; ++j) {
      unroll<2>([&](auto h) {
        const __m512i line = load(lines + h * Slab<4>::kHalfTile + j * 64);
        Cpu::ask(lines + (2 * j + h) * 64);
        const __m512i low = expand(low_nibbles(line), scale[h][0]), high = expand(high_nibbles(line), scale[h][1]);
        unroll<T>([&](auto t) {
          dots[h][t].add(low, broadcast(x + t * kSlabCols + j * 4));
          dots[h][t].add(high, broadcast(x + t * kSlabCols + kBlockCols + j * 4));
        });
      });
    }
  } else {
    for (Index j = 0; j < 16; ++j) {
      unroll<2>([&](auto h) {
        const __m512i line = load(lines + h * Slab<8>::kHalfTile + j * 64);
        Cpu::ask(lines + (2 * j + h) * 64);
        unroll<T>([&](auto t) { dots[h][t].add(line, broadcast(x + t * kSlabCols + j * 4)); });
      });
    }
  }
}

// The same slab of P panels by T tokens.  x [T][512], sums [P][T][32]
template <class Cpu, int Bits, int P, int T>
void narrow(const Slabs<Bits>& slabs, const std::int8_t* x, const SlabMeta* meta, float* sums) noexcept {
  constexpr bool kByBlocks = Bits == 4 && T <= 4;
  Sum dots[P][2][T];
  for (Index tile = 0; tile < slabs.tiles; ++tile) {
    unroll<P>([&](auto p) {
      if constexpr (kByBlocks) {
        add_tile_by_blocks<Cpu, T>(slabs[p], tile, x + tile * kTileCols, meta, dots[p]);
      } else {
        add_tile<Cpu, Bits, T>(slabs[p], tile, x + tile * kTileCols, dots[p]);
      }
    });
  }
  unroll<P>([&](auto p) {
    unroll<2>([&](auto h) {
      unroll<T>([&](auto t) {
        const std::int32_t bias = kByBlocks ? 0 : kBias * meta[t].sum;
        add_dot(dots[p][h][t].lanes, bias, scale_of(slabs[p], h), meta[t].scale,
                sums + (p * T + t) * kPanelRows + h * kHalfRows);
      });
    });
  });
}

// The slab as P8 would have it: [tile][half][16 quads][16 rows][4 columns] bytes.
template <class Cpu>
void expand_slab(const Slab<4>& slab, std::byte* out) noexcept {
  for (Index tile = 0; tile < slab.tiles; ++tile) {
    for (int h = 0; h < 2; ++h) {
      const BlockScale first = block_scale(slab.mz(tile, 0, h * kHalfRows)),
                       second = block_scale(slab.mz(tile, 1, h * kHalfRows));
      const std::byte* lines = slab.half(tile, h);
      std::byte* to = out + (2 * tile + h) * Slab<8>::kHalfTile;
      for (Index j = 0; j < 8; ++j) {
        const __m512i line = load(lines + j * 64);
        Cpu::ask(lines + j * 64);
        _mm512_store_si512(to + j * 64, expand(low_nibbles(line), first));
        _mm512_store_si512(to + (8 + j) * 64, expand(high_nibbles(line), second));
      }
    }
  }
}

// The slab after the one that is multiplied, asked for line by line meanwhile.
struct Ahead {
  const std::byte *line, *end;
  void ask() noexcept {
    if (line >= end) return;
    _mm_prefetch(reinterpret_cast<const char*>(line), _MM_HINT_T1);
    line += 64;
  }
};

// T <= kTileTokens tokens by one slab of bytes.
template <int T>
void tile_of(const std::byte* w, Index tiles, __m512 scale0, __m512 scale1, const std::int8_t* x, const SlabMeta* meta,
             Ahead& ahead, float* sums) noexcept {
  Sum dots[2][T];
  for (Index tile = 0; tile < tiles; ++tile) {
    for (Index j = 0; j < 16; ++j) {
      const std::byte* line = w + (2 * tile * 16 + j) * 64;
      const __m512i first = load(line), second = load(line + Slab<8>::kHalfTile);
      const std::int8_t* xs = x + tile * kTileCols + j * 4;
      ahead.ask();
      unroll<T>([&](auto t) {
        const __m512i quad = broadcast(xs + t * kSlabCols);
        dots[0][t].add(first, quad);
        dots[1][t].add(second, quad);
      });
    }
  }
  unroll<T>([&](auto t) {
    const std::int32_t bias = kBias * meta[t].sum;
    add_dot(dots[0][t].lanes, bias, scale0, meta[t].scale, sums + t * kPanelRows);
    add_dot(dots[1][t].lanes, bias, scale1, meta[t].scale, sums + t * kPanelRows + kHalfRows);
  });
}

// Tokens from t0 on of a block, kTileTokens at a time.
template <int Bits>
void multiply_rest(const Slab<Bits>& slab, const std::byte* w, const std::int8_t* x, const SlabMeta* meta, Index t0,
                   Index tokens, float* sums) noexcept {
  const __m512 scale0 = scale_of(slab, 0), scale1 = scale_of(slab, 1);
  Ahead ahead{slab.data + slab.bytes(), slab.data + 2 * slab.bytes()};
  for (Index t = t0; t < tokens; t += kTileTokens) {
    with_constant<kTileTokens>(tokens - t < kTileTokens ? tokens - t : kTileTokens, [&](auto n) {
      tile_of<n>(w, slab.tiles, scale0, scale1, x + t * kSlabCols, meta + t, ahead, sums + t * kPanelRows);
    });
  }
}

// The slab's weights as bytes: P8's are, P4's are expanded into `room`.
template <class Cpu, int Bits>
const std::byte* bytes_of(const Slab<Bits>& slab, std::byte* room) noexcept {
  if constexpr (Bits == 8) return slab.half(0, 0);
  if constexpr (Bits == 4) expand_slab<Cpu>(slab, room);
  return room;
}

// More: each slab is expanded once and multiplied by all of them.
template <class Cpu, int Bits>
void multiply(const PackedLinearArgs& a) noexcept {
  alignas(64) std::byte room[kPanelRows * kSlabCols];
  multiply_panels<Bits>(
      a, [&](const Slab<Bits>& slab, const std::int8_t* x, const SlabMeta* meta, Index tokens, float* sums) {
        multiply_rest(slab, bytes_of<Cpu>(slab, room), x, meta, 0, tokens, sums);
      });
}

// Up to kNarrowTokens tokens.
template <class Cpu, int Bits>
void multiply_few(const PackedLinearArgs& a) noexcept {
  with_constant<kNarrowTokens>(a.tokens, [&](auto n) {
    stream_panels<Bits, n, Cpu::streams(Bits, n)>(
        a, [&](auto p, const Slabs<Bits>& slabs, const std::int8_t* x, const SlabMeta* meta, float* sums) {
          narrow<Cpu, Bits, p, n>(slabs, x, meta, sums);
        });
  });
}

}  // namespace
}  // namespace mixtral::kernels
