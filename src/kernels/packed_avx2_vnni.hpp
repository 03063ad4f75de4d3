// Products with packed weights on AVX2 with VNNI: vpdpbusd on 256 bits. A slab's weights are bytes in the L1 cache,
// P4's expanded there, P8's as they lie; eight rows in a register, two registers by up to six tokens at a time.
//
// `Products` is the instruction, or code that does the same:
//   add(sum, unsigned_bytes, signed_bytes)  sum[8] int32 += the four products of each
#pragma once

#include "kernels/packed_panels.hpp"

namespace mixtral::kernels {
namespace {

// Weights carry 128 to be unsigned, which is taken back as 128 * sum(x).
constexpr int kByteBias = 128;
constexpr int kByteTokens = 6;  // 12 sums, 2 operands and a broadcast of 16 registers
constexpr Index kByteRows = 8;

__m256i load_bytes(const void* p) noexcept { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// What makes eight rows' nibbles of one block of 32 columns bytes: byte = q * m + (128 - m * z). One product of 16-bit
// lanes serves two bytes: q * m <= 225, so nothing is carried.
struct BlockBytes {
  explicit BlockBytes(const std::byte* mz) noexcept {
    const __m256i both = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(mz)));
    const __m256i one = _mm256_and_si256(both, _mm256_set1_epi32(15));
    const __m256i less = _mm256_mullo_epi16(one, _mm256_srli_epi32(both, 4));
    const __m256i low_byte =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12));
    m = _mm256_or_si256(one, _mm256_slli_epi32(one, 16));
    offset = _mm256_shuffle_epi8(_mm256_sub_epi32(_mm256_set1_epi32(kByteBias), less), low_byte);
  }
  __m256i operator()(__m256i nibbles) const noexcept {
    const __m256i q = _mm256_and_si256(nibbles, _mm256_set1_epi8(15));
    return _mm256_add_epi8(_mm256_mullo_epi16(q, m), offset);
  }
  __m256i m;       // in every 16-bit lane
  __m256i offset;  // in every byte
};

// A slab's weights as P8 has them: [tile][half][16 quads][16 rows][4 columns].
template <class Cpu>
const std::byte* slab_bytes(const Slab<4>& slab, std::byte* room) noexcept {
  for (Index tile = 0; tile < slab.tiles; ++tile) {
    for (Index row = 0; row < kPanelRows; row += kByteRows) {
      const Index half = row / kHalfRows, in_line = row % kHalfRows * 4;
      const BlockBytes first(slab.mz(tile, 0, row)), second(slab.mz(tile, 1, row));
      std::byte* to = room + (2 * tile + half) * Slab<8>::kHalfTile + in_line;
      for (Index j = 0; j < 8; ++j) {
        const std::byte* line = slab.half(tile, half) + j * 64;
        if (in_line == 0) Cpu::ask(line);
        const __m256i both = load_bytes(line + in_line);
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + j * 64), first(both));
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + (8 + j) * 64), second(_mm256_srli_epi16(both, 4)));
      }
    }
  }
  return room;
}
template <class Cpu>
const std::byte* slab_bytes(const Slab<8>& slab, std::byte* /*room*/) noexcept {
  return slab.half(0, 0);
}

// Sixteen rows from `row` on by T tokens.  w: the slab's bytes, x [T][512], sums [T][32]. Never inlined: gcc 12 would
// keep sums of one T in memory for another's.
template <class Cpu, class Products, int T>
[[gnu::noinline]] void multiply_bytes(const std::byte* w, Index tiles, const float* scales, Index row,
                                      const std::int8_t* x, const SlabMeta* meta, float* sums) noexcept {
  struct Sum {
    __m256i lanes = __m256i{};
  } dots[2][T];
  for (Index tile = 0; tile < tiles; ++tile) {
    const std::byte* quads = w + (2 * tile + row / kHalfRows) * Slab<8>::kHalfTile;
    for (Index j = 0; j < 16; ++j) {
      const __m256i w0 = load_bytes(quads + j * 64), w1 = load_bytes(quads + j * 64 + 32);
      Cpu::ask(quads + j * 64);
      unroll<T>([&](auto t) {
        std::int32_t quad;
        std::memcpy(&quad, x + t * kSlabCols + tile * kTileCols + j * 4, sizeof quad);
        const __m256i xs = _mm256_set1_epi32(quad);
        Products::add(dots[0][t].lanes, w0, xs);
        Products::add(dots[1][t].lanes, w1, xs);
      });
    }
  }
  unroll<T>([&](auto t) {
    unroll<2>([&](auto r) {
      const __m256i dot = _mm256_sub_epi32(dots[r][t].lanes, _mm256_set1_epi32(kByteBias * meta[t].sum));
      const __m256 scale_w = _mm256_loadu_ps(scales + row + r * kByteRows);
      float* sum = sums + t * kPanelRows + row + r * kByteRows;
      _mm256_storeu_ps(sum,
                       _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(scale_w, _mm256_set1_ps(meta[t].scale)),
                                       _mm256_loadu_ps(sum)));
    });
  });
}

template <class Cpu, int Bits, class Products>
void packed_linear_avx2_vnni(const PackedLinearArgs& a) noexcept {
  alignas(64) std::byte room[kPanelRows * kSlabCols];
  multiply_panels<Bits>(a, [&](const Slab<Bits>& slab, const std::int8_t* x, const SlabMeta* meta, Index tokens,
                               float* sums) {
    const std::byte* w = slab_bytes<Cpu>(slab, room);
    for (Index t = 0; t < tokens; t += kByteTokens) {
      with_constant<kByteTokens>(tokens - t < kByteTokens ? tokens - t : kByteTokens, [&](auto n) {
        // P4's weights were asked for when they were expanded.
        const auto run = Bits == 8 && t == 0 ? multiply_bytes<Cpu, Products, n> : multiply_bytes<Nobody, Products, n>;
        for (Index row = 0; row < kPanelRows; row += kHalfRows) {
          run(w, slab.tiles, slab.scales(), row, x + t * kSlabCols, meta + t, sums + t * kPanelRows);
        }
      });
    }
  });
}

}  // namespace
}  // namespace mixtral::kernels
