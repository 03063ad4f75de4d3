// Products with packed weights on AVX-512 VNNI (Ice Lake, Zen 4 and later). Runs only after dispatch.cpp has checked
// the CPU.
#include <immintrin.h>

#include "kernels/isa.hpp"
#include "mixtral/simd/packed_rows.hpp"

namespace mixtral::kernels {
namespace {

using simd::PackedLinearArgs;
using simd::SlabMeta;
using simd::unroll;

// vpdpbusd multiplies unsigned by signed bytes: weights carry 128, which is taken back as 128 * sum(x). No overflow:
// 512 * 255 * 127 < 2^24.
constexpr int kBias = 128;
// Up to so many tokens weights are expanded in registers, each use of a line being its only one; for more they are
// expanded into the L1 cache once (16 KiB) and multiplied in register tiles.
constexpr int kNarrowTokens = 8;
// 2 halves of rows * 12 tokens = 24 sums, 2 operands and a broadcast: 27 of 32 registers; enough sums to hide the
// latency of vpdpbusd (5 cycles, 2 a cycle).
constexpr int kTileTokens = 12;
// Tokens whose float32 sums (16 KiB) wait while a panel is multiplied.
constexpr Index kChunkTokens = 128;
// Weights stream from several panels in turns, a tile of each: the memory then serves more requests at a time. With
// more tokens their sums would not find registers.
constexpr int streams(int tokens) noexcept { return tokens <= 4 ? 4 : 1; }
// How far ahead of its use a line of weights is asked for.
constexpr Index kPrefetchBytes = 4096;

__m512i load(const void* p) noexcept { return _mm512_loadu_si512(p); }

// A sum of products in a register. As a type of its own, since gcc 12 writes arrays of bare vectors to memory in every
// round of a loop.
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

void prefetch(const std::byte* line) noexcept {
  _mm_prefetch(reinterpret_cast<const char*>(line + kPrefetchBytes), _MM_HINT_T0);
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

// One slab of a panel, and where its parts are.
template <int Bits>
struct Slab {
  const std::byte* data;
  Index tiles;
  static constexpr Index kHalfTile = kHalfRows * kTileCols * Bits / 8;

  __m512 scale(int h) const noexcept { return _mm512_loadu_ps(data + h * 64); }
  // P4's m and z of block b of a tile.
  const std::byte* mz(Index tile, int b, int h) const noexcept {
    return data + simd::kScaleBytes + (2 * tile + b) * kPanelRows + h * kHalfRows;
  }
  const std::byte* half(Index tile, int h) const noexcept {
    return data + PackedLayout{Bits}.scale_bytes(tiles) + (2 * tile + h) * kHalfTile;
  }
};

// sum[16] = fma(dot, scale_w * scale_x, sum): half the rows of one token. By value, as all sums in registers here: gcc
// 12 keeps an array whose address is taken in memory, too.
[[gnu::always_inline]] inline void add_dot(__m512i dot, std::int32_t bias, __m512 scale_w, float scale_x,
                                           float* sum) noexcept {
  const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(dot, _mm512_set1_epi32(bias)));
  const __m512 scale = _mm512_mul_ps(scale_w, _mm512_set1_ps(scale_x));
  _mm512_store_ps(sum, _mm512_fmadd_ps(exact, scale, _mm512_load_ps(sum)));
}

// For a few tokens, without the weights' bytes: dot = sum over blocks of m * (sum of q * x - z * sum of
// x). Half the instructions a line: the more there are, the fewer lines are asked for at a time.
template <int T>
[[gnu::always_inline]] inline void add_tile_by_blocks(const Slab<4>& slab, Index tile, const std::int8_t* x,
                                                      const SlabMeta* meta, Sum (&dots)[2][T]) noexcept {
  unroll<2>([&](auto h) {
    const std::byte* lines = slab.half(tile, h);
    Sum first[T], second[T];
    unroll<8>([&](auto j) {
      const __m512i line = load(lines + j * 64);
      prefetch(lines + j * 64);
      const __m512i low = low_nibbles(line), high = high_nibbles(line);
      unroll<T>([&](auto t) {
        first[t].add_quad(low, x + t * kSlabCols + j * 4);
        second[t].add_quad(high, x + t * kSlabCols + kBlockCols + j * 4);
      });
    });
    const auto bytes = [&](int b) {
      return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(slab.mz(tile, b, h))));
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
template <int Bits, int T>
[[gnu::always_inline]] inline void add_tile(const Slab<Bits>& slab, Index tile, const std::int8_t* x,
                                            Sum (&dots)[2][T]) noexcept {
  const std::byte* lines = slab.half(tile, 0);
  if constexpr (Bits == 4) {
    BlockScale scale[2][2];
    unroll<2>([&](auto h) { unroll<2>([&](auto b) { scale[h][b] = block_scale(slab.mz(tile, b, h)); }); });
    for (Index j = 0; j < 8; ++j) {
      unroll<2>([&](auto h) {
        const __m512i line = load(lines + h * Slab<4>::kHalfTile + j * 64);
        prefetch(lines + (2 * j + h) * 64);
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
        prefetch(lines + (2 * j + h) * 64);
        unroll<T>([&](auto t) { dots[h][t].add(line, broadcast(x + t * kSlabCols + j * 4)); });
      });
    }
  }
}

// The same slab of P panels, panel_bytes apart, by T tokens.  x [T][512], sums [P][T][32]
template <int Bits, int P, int T>
void narrow(const std::byte* data, Index panel_bytes, Index tiles, const std::int8_t* x, const SlabMeta* meta,
            float* sums) noexcept {
  constexpr bool kByBlocks = Bits == 4 && T <= 4;
  Sum dots[P][2][T];
  for (Index tile = 0; tile < tiles; ++tile) {
    unroll<P>([&](auto p) {
      const Slab<Bits> slab{data + p * panel_bytes, tiles};
      if constexpr (kByBlocks) {
        add_tile_by_blocks<T>(slab, tile, x + tile * kTileCols, meta, dots[p]);
      } else {
        add_tile<Bits, T>(slab, tile, x + tile * kTileCols, dots[p]);
      }
    });
  }
  unroll<P>([&](auto p) {
    const Slab<Bits> slab{data + p * panel_bytes, tiles};
    unroll<2>([&](auto h) {
      unroll<T>([&](auto t) {
        const std::int32_t bias = kByBlocks ? 0 : kBias * meta[t].sum;
        add_dot(dots[p][h][t].lanes, bias, slab.scale(h), meta[t].scale,
                sums + (p * T + t) * kPanelRows + h * kHalfRows);
      });
    });
  });
}

// The slab as P8 would have it: [tile][half][16 quads][16 rows][4 columns] bytes.
void expand_slab(const Slab<4>& slab, std::byte* out) noexcept {
  for (Index tile = 0; tile < slab.tiles; ++tile) {
    for (int h = 0; h < 2; ++h) {
      const BlockScale first = block_scale(slab.mz(tile, 0, h)), second = block_scale(slab.mz(tile, 1, h));
      const std::byte* lines = slab.half(tile, h);
      std::byte* to = out + (2 * tile + h) * Slab<8>::kHalfTile;
      for (Index j = 0; j < 8; ++j) {
        const __m512i line = load(lines + j * 64);
        prefetch(lines + j * 64);
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

// The sums [tokens][32] of one panel become outputs.
void store(const PackedLinearArgs& a, Index r0, Index t0, Index tokens, const float* sums) noexcept {
  const auto rows = static_cast<std::size_t>(a.rows - r0 < kPanelRows ? a.rows - r0 : kPanelRows);
  for (Index t = 0; t < tokens; ++t) {
    std::memcpy(a.y + (t0 + t) * a.y_stride + r0, sums + t * kPanelRows, rows * sizeof(float));
  }
}

// Calls f(std::integral_constant<int, n>) for n in [1, N].
template <int N, class F>
void with_constant(Index n, F&& f) noexcept {
  if constexpr (N > 0) {
    if (n == N) return f(std::integral_constant<int, N>{});
    with_constant<N - 1>(n, f);
  }
}

template <int Bits>
void wide(const Slab<Bits>& slab, const std::int8_t* x, const SlabMeta* meta, Index tokens, std::byte* expanded,
          float* sums) noexcept {
  const std::byte* w = slab.half(0, 0);
  if constexpr (Bits == 4) {
    expand_slab(slab, expanded);
    w = expanded;
  }
  const __m512 scale0 = slab.scale(0), scale1 = slab.scale(1);
  const Index bytes = PackedLayout{Bits}.slab_bytes(slab.tiles);
  Ahead ahead{slab.data + bytes, slab.data + 2 * bytes};
  for (Index t = 0; t < tokens; t += kTileTokens) {
    with_constant<kTileTokens>(tokens - t < kTileTokens ? tokens - t : kTileTokens, [&](auto n) {
      tile_of<n>(w, slab.tiles, scale0, scale1, x + t * kSlabCols, meta + t, ahead, sums + t * kPanelRows);
    });
  }
}

// Up to kNarrowTokens tokens: weights stream through once.
template <int Bits, int T>
void stream(const PackedLinearArgs& a) noexcept {
  const PackedLayout layout{Bits, a.cols};
  const Index panel_bytes = layout.panel_bytes();
  for (Index r0 = 0; r0 < a.rows; r0 += streams(T) * kPanelRows) {
    const Index panels = (a.rows - r0 + kPanelRows - 1) / kPanelRows;
    with_constant<streams(T)>(panels < streams(T) ? panels : streams(T), [&](auto n) {
      alignas(64) float sums[n * T * kPanelRows] = {};
      for (Index s = 0; s < layout.slabs(); ++s) {
        narrow<Bits, n, T>(a.w + r0 / kPanelRows * panel_bytes + layout.slab_offset(s), panel_bytes,
                           layout.slab_tiles(s), a.q + s * a.slab_tokens * kSlabCols, a.meta + s * a.slab_tokens, sums);
      }
      for (Index p = 0; p < n; ++p) store(a, r0 + p * kPanelRows, 0, T, sums + p * T * kPanelRows);
    });
  }
}

// Any number of tokens, kChunkTokens at a time: each slab is expanded once and multiplied by all of them.
template <int Bits>
void multiply(const PackedLinearArgs& a) noexcept {
  alignas(64) std::byte expanded[kPanelRows * kSlabCols];
  alignas(64) float sums[kChunkTokens * kPanelRows];
  const PackedLayout layout{Bits, a.cols};
  for (Index t0 = 0; t0 < a.tokens; t0 += kChunkTokens) {
    const Index tokens = a.tokens - t0 < kChunkTokens ? a.tokens - t0 : kChunkTokens;
    for (Index r0 = 0; r0 < a.rows; r0 += kPanelRows) {
      const std::byte* panel = a.w + r0 / kPanelRows * layout.panel_bytes();
      std::memset(sums, 0, static_cast<std::size_t>(tokens * kPanelRows) * sizeof(float));
      for (Index s = 0; s < layout.slabs(); ++s) {
        wide<Bits>({panel + layout.slab_offset(s), layout.slab_tiles(s)}, a.q + (s * a.slab_tokens + t0) * kSlabCols,
                   a.meta + s * a.slab_tokens + t0, tokens, expanded, sums);
      }
      store(a, r0, t0, tokens, sums);
    }
  }
}

template <int Bits>
void packed_linear(const PackedLinearArgs& a) noexcept {
  if (a.tokens > kNarrowTokens) return multiply<Bits>(a);
  with_constant<kNarrowTokens>(a.tokens, [&](auto n) { stream<Bits, n>(a); });
}

}  // namespace

void fill_avx512_vnni(KernelTable& table) noexcept {
  table.name = "avx512_vnni";
  table.packed_linear[0] = packed_linear<4>;
  table.packed_linear[1] = packed_linear<8>;
}

}  // namespace mixtral::kernels
