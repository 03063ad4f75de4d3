// AVX2 and FMA (Haswell, Zen and later). Runs only after dispatch.cpp has checked the CPU.
#include <immintrin.h>

#include "kernels/isa.hpp"
#include "kernels/packed_panels.hpp"
#include "mixtral/ops/native_table.hpp"

namespace mixtral::kernels {
namespace {

// Products with packed weights. vpmaddubsw multiplies unsigned by signed bytes and adds pairs with 16 bits, so weights
// stay nibbles: eight pairs of 15 * 127 fit (8 * 2 * 15 * 127 < 2^15), those of one block of 32 columns. vpmaddwd then
// multiplies by what the nibbles count: P4's m; 1 and 16 for the two nibbles of P8's byte.

// 2 sums of 16 bits a token, 1 of 32, a line, its nibbles, a broadcast and a mask: 16 registers.
constexpr int kTokens = 4;
// Rows in a register of 32-bit sums.
constexpr Index kRegisterRows = 8;

__m256i broadcast(const void* quad) noexcept {
  std::int32_t value;
  std::memcpy(&value, quad, sizeof value);
  return _mm256_set1_epi32(value);
}

template <class Cpu>
struct Nibbles {
  __m256i low, high;
  explicit Nibbles(const std::byte* line) noexcept {
    const __m256i mask = _mm256_set1_epi8(15), both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line));
    low = _mm256_and_si256(both, mask);
    high = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
    Cpu::ask(line);
  }
};

// Sums in registers.
struct Pairs {
  __m256i lanes = __m256i{};
  void add(__m256i weights, __m256i x) noexcept { lanes = _mm256_add_epi16(lanes, _mm256_maddubs_epi16(weights, x)); }
};
struct Dot {
  __m256i lanes = __m256i{};
  void add(const Pairs& sum, __m256i factor) noexcept {
    lanes = _mm256_add_epi32(lanes, _mm256_madd_epi16(sum.lanes, factor));
  }
  void subtract(__m256i x) noexcept { lanes = _mm256_sub_epi32(lanes, x); }
};

// Eight lines, the nibbles of each by two sets of activations.
template <class Cpu, int T>
[[gnu::always_inline]] inline void add_block(const std::byte* lines, const std::int8_t* x_low,
                                             const std::int8_t* x_high, Pairs (&low)[T], Pairs (&high)[T]) noexcept {
  for (Index j = 0; j < 8; ++j) {
    const Nibbles<Cpu> w(lines + j * 64);
    unroll<T>([&](auto t) {
      low[t].add(w.low, broadcast(x_low + t * kSlabCols + j * 4));
      high[t].add(w.high, broadcast(x_high + t * kSlabCols + j * 4));
    });
  }
}

// Eight rows from `row` on by T tokens, one slab. Never inlined: gcc 12 would keep sums of one T in memory for
// another's.  x [T][512], sums [T][32]
template <class Cpu, int Bits, int T>
[[gnu::noinline]] void multiply(const Slab<Bits>& slab, Index row, const std::int8_t* x, const SlabMeta* meta,
                                float* sums) noexcept {
  constexpr Index kHalfTile = Slab<Bits>::kHalfTile;
  const std::byte* lines = slab.half(0, row / kHalfRows) + row % kHalfRows * 4;
  Dot dots[T];
  for (Index tile = 0; tile < slab.tiles; ++tile, lines += 2 * kHalfTile) {
    const std::int8_t* xs = x + tile * kTileCols;
    if constexpr (Bits == 4) {
      Pairs low[T], high[T];
      add_block<Cpu, T>(lines, xs, xs + kBlockCols, low, high);
      const auto bytes = [&](Index block) {
        return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(slab.mz(tile, block, row))));
      };
      const __m256i mz0 = bytes(0), mz1 = bytes(1), fifteen = _mm256_set1_epi32(15);
      const __m256i m0 = _mm256_and_si256(mz0, fifteen), m1 = _mm256_and_si256(mz1, fifteen);
      const __m256i zeros =  // m * z of both blocks, side by side
          _mm256_or_si256(_mm256_mullo_epi16(m0, _mm256_srli_epi32(mz0, 4)),
                          _mm256_slli_epi32(_mm256_mullo_epi16(m1, _mm256_srli_epi32(mz1, 4)), 16));
      const __m256i factor0 = _mm256_or_si256(m0, _mm256_slli_epi32(m0, 16));
      const __m256i factor1 = _mm256_or_si256(m1, _mm256_slli_epi32(m1, 16));
      unroll<T>([&](auto t) {
        dots[t].add(low[t], factor0);
        dots[t].add(high[t], factor1);
        dots[t].subtract(_mm256_madd_epi16(zeros, broadcast(meta[t].block_sums + 2 * tile)));
      });
    } else {
      for (Index block = 0; block < 2; ++block) {
        Pairs low[T], high[T];
        const std::int8_t* xb = xs + block * kBlockCols;
        add_block<Cpu, T>(lines + block * kHalfTile / 2, xb, xb, low, high);
        unroll<T>([&](auto t) {
          dots[t].add(low[t], _mm256_set1_epi16(1));
          dots[t].add(high[t], _mm256_set1_epi16(16));
        });
      }
    }
  }
  const __m256 scale_w = _mm256_loadu_ps(slab.scales() + row);
  unroll<T>([&](auto t) {
    if constexpr (Bits == 8) dots[t].subtract(_mm256_set1_epi32(128 * meta[t].sum));
    const __m256 scale = _mm256_mul_ps(scale_w, _mm256_set1_ps(meta[t].scale));
    float* sum = sums + t * kPanelRows + row;
    _mm256_store_ps(sum, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[t].lanes), scale, _mm256_load_ps(sum)));
  });
}

template <class Cpu, int Bits>
void packed_linear(const PackedLinearArgs& a) noexcept {
  multiply_panels<Bits>(
      a, [](const Slab<Bits>& slab, const std::int8_t* x, const SlabMeta* meta, Index tokens, float* sums) {
        for (Index t = 0; t < tokens; t += kTokens) {
          with_constant<kTokens>(tokens - t < kTokens ? tokens - t : kTokens, [&](auto n) {
            for (Index row = 0; row < kPanelRows; row += kRegisterRows) {
              // The first tokens ask for each line, once for its two halves.
              const auto run = t == 0 && row % kHalfRows == 0 ? multiply<Cpu, Bits, n> : multiply<Nobody, Bits, n>;
              run(slab, row, x + t * kSlabCols, meta + t, sums + t * kPanelRows);
            }
          });
        }
      });
}

}  // namespace

void fill_avx2(KernelTable& table, CpuMaker maker) noexcept {
  table.name = "avx2";
  fill_rows<xsimd::fma3<xsimd::avx2>>(table);
  with_maker(maker, [&](auto cpu) {
    table.packed_linear[0] = packed_linear<decltype(cpu), 4>;
    table.packed_linear[1] = packed_linear<decltype(cpu), 8>;
  });
}

}  // namespace mixtral::kernels
