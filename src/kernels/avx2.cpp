// AVX2 and FMA (Haswell, Zen and later). Runs only after isa.cpp has checked the CPU.
#include <immintrin.h>

#include "kernels/fill.hpp"
#include "kernels/packed_blocks.hpp"
#include "kernels/vnni_ymm.hpp"
#include "mixtral/ops/native_table.hpp"

namespace mixtral::kernels {
namespace {

// Products with packed weights: eight rows in a register, two registers by up to kTokens tokens at a time, 12 sums, 2
// operands, a broadcast and a product, all 16 registers.
//
// P4: vpmaddubsw multiplies unsigned by signed bytes and adds pairs with 16 bits. Weights stay nibbles, so that the
// eight pairs of a block of 32 columns fit (8 * 2 * 15 * 127 < 2^15); vpmaddwd multiplies their sum by the block's m.
// P8: bytes would not fit, so both sides become words for vpmaddwd.
constexpr int kTokens = 6;
constexpr Index kRegisterRows = 8;
// Up to so many tokens read kStreams panels side by side; with one or four of them the memory gives less.
constexpr int kFewTokens = 4;

__m256i load(const void* p) noexcept { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
// The same four bytes or four words of activations for every row.
__m256i broadcast(const void* four_bytes) noexcept {
  std::int32_t value;
  std::memcpy(&value, four_bytes, sizeof value);
  return _mm256_set1_epi32(value);
}
__m256i broadcast_words(const std::int16_t* four) noexcept {
  std::int64_t value;
  std::memcpy(&value, four, sizeof value);
  return _mm256_set1_epi64x(value);
}

// A sum of products in a register. In assembly, one product after the other: gcc 12 computes all products before it
// adds, and has no registers for them.
struct Sum {
  __m256i lanes = __m256i{};
  void add_bytes(__m256i unsigned_bytes, __m256i x) noexcept {
    __m256i sum = lanes, product;
    asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(unsigned_bytes), "x"(x));
    lanes = sum;
  }
  void add_words(__m256i words, __m256i x) noexcept {
    __m256i sum = lanes, product;
    asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(words), "x"(x));
    lanes = sum;
  }
};

void add_to(std::int32_t* dots, __m256i x) noexcept {
  auto* eight = reinterpret_cast<__m256i*>(dots);
  _mm256_store_si256(eight, _mm256_add_epi32(_mm256_load_si256(eight), x));
}

// Where a slab's weights come from: from memory they are asked for ahead.
enum class From { kMemory, kCache };

// Tiles [begin, end) of a slab.
struct Tiles {
  Index begin, end;
};

// A slab's activations as the products take them: of each tile 64 a token.
template <DType kType, int T>
struct Activations {
  explicit Activations(const SlabColumns& columns) noexcept : x(columns) {}
  const std::int8_t* tile(Index i) const noexcept { return x.tile(i); }
  SlabColumns x;
};
template <int T>
struct Activations<DType::kP8, T> {
  explicit Activations(const SlabColumns& columns) noexcept {
    for (Index i = 0; i < kSlabTiles; ++i) {
      for (Index k = 0; k < T * kTileCols; k += 16) {
        const __m256i words =
            _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(columns.tile(i) + k)));
        _mm256_store_si256(reinterpret_cast<__m256i*>(x[i] + k), words);
      }
    }
  }
  const std::int16_t* tile(Index i) const noexcept { return x[i]; }
  alignas(32) std::int16_t x[kSlabTiles][T * kTileCols];
};

// ---- P4 ----

// Eight rows' m | z << 4 of one block, in 32 bits each.
__m256i load_mz(const Slab<DType::kP4>& slab, Index tile, Index block, Index row) noexcept {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(slab.mz(tile, block, row))));
}
__m256i m_of(__m256i mz) noexcept { return _mm256_and_si256(mz, _mm256_set1_epi32(15)); }
__m256i times_z(__m256i mz) noexcept { return _mm256_mullo_epi16(m_of(mz), _mm256_srli_epi32(mz, 4)); }
// Words x0, x1, x0, x1 ... of eight numbers each.
__m256i side_by_side(__m256i x0, __m256i x1) noexcept { return _mm256_or_si256(x0, _mm256_slli_epi32(x1, 16)); }

// dots [T][kStride] = -m * z * (sum of x), sixteen rows from `row` on of a whole slab.
template <int T, int kStride>
[[gnu::always_inline]] inline void begin_rows(const Slab<DType::kP4>& slab, Index row, const SlabMeta* meta,
                                              std::int32_t* dots) noexcept {
  Sum zeros[2][T];
  for (Index tile = 0; tile < slab.tiles; ++tile) {
    const auto both_blocks = [&](Index eight) {
      return side_by_side(times_z(load_mz(slab, tile, 0, eight)), times_z(load_mz(slab, tile, 1, eight)));
    };
    const __m256i mz0 = both_blocks(row), mz1 = both_blocks(row + kRegisterRows);
    unroll<T>([&](auto t) {
      const __m256i pair = broadcast(meta[t].block_sums + 2 * tile);
      zeros[0][t].add_words(mz0, pair);
      zeros[1][t].add_words(mz1, pair);
    });
  }
  unroll<T>([&](auto t) {
    unroll<2>([&](auto r) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(dots + t * kStride + r * kRegisterRows),
                         _mm256_sub_epi32(__m256i{}, zeros[r][t].lanes));
    });
  });
}

// dots [T][kStride] += m * (sum of q * x) of block B of a tile, sixteen rows from `row` on.  x [T][64]
template <From kFrom, int B, int T, int kStride>
[[gnu::always_inline]] inline void add_block(const Slab<DType::kP4>& slab, Index tile, Index row, const std::int8_t* x,
                                             std::int32_t* dots) noexcept {
  const std::byte* lines = slab.half(tile, row / kHalfRows);
  const auto nibbles = [](const std::byte* line) {
    const __m256i both = load(line);
    return _mm256_and_si256(B == 0 ? both : _mm256_srli_epi16(both, 4), _mm256_set1_epi8(15));
  };
  Sum pairs[2][T];
  for (Index j = 0; j < 8; ++j) {
    const __m256i w0 = nibbles(lines + j * 64), w1 = nibbles(lines + j * 64 + 32);
    if constexpr (kFrom == From::kMemory && B == 0) ask(lines + j * 64);
    unroll<T>([&](auto t) {
      const __m256i quad = broadcast(x + t * kTileCols + B * kBlockCols + j * 4);
      pairs[0][t].add_bytes(w0, quad);
      pairs[1][t].add_bytes(w1, quad);
    });
  }
  unroll<2>([&](auto r) {
    const __m256i m = m_of(load_mz(slab, tile, B, row + r * kRegisterRows)), both = side_by_side(m, m);
    unroll<T>(
        [&](auto t) { add_to(dots + t * kStride + r * kRegisterRows, _mm256_madd_epi16(pairs[r][t].lanes, both)); });
  });
}

// dots [T][kStride] += weights by activations, sixteen rows from `row` on.
template <From kFrom, int T, int kStride>
[[gnu::always_inline]] inline void add_rows(const Slab<DType::kP4>& slab, Tiles tiles, Index row,
                                            const Activations<DType::kP4, T>& in, std::int32_t* dots) noexcept {
  for (Index tile = tiles.begin; tile < tiles.end; ++tile) {
    add_block<kFrom, 0, T, kStride>(slab, tile, row, in.tile(tile), dots);
    add_block<kFrom, 1, T, kStride>(slab, tile, row, in.tile(tile), dots);
  }
}

// ---- P8 ----

// Takes back the 128 that each weight carries.
template <int T, int kStride>
[[gnu::always_inline]] inline void begin_rows(const Slab<DType::kP8>& /*slab*/, Index /*row*/, const SlabMeta* meta,
                                              std::int32_t* dots) noexcept {
  for (Index t = 0; t < T; ++t) {
    for (Index r = 0; r < kHalfRows; ++r) dots[t * kStride + r] = -128 * meta[t].sum;
  }
}

template <From kFrom, int T, int kStride>
[[gnu::always_inline]] inline void add_rows(const Slab<DType::kP8>& slab, Tiles tiles, Index row,
                                            const Activations<DType::kP8, T>& in, std::int32_t* dots) noexcept {
  const auto words = [](const std::byte* four_rows) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(four_rows)));
  };
  for (Index eight = 0; eight < kHalfRows; eight += kRegisterRows) {
    Sum pairs[2][T];  // of four rows each, two sums a row
    for (Index tile = tiles.begin; tile < tiles.end; ++tile) {
      const std::byte* quads = slab.half(tile, row / kHalfRows) + eight * 4;
      for (Index j = 0; j < 16; ++j) {
        const __m256i w0 = words(quads + j * 64), w1 = words(quads + j * 64 + 16);
        if (kFrom == From::kMemory && eight == 0) ask(quads + j * 64);
        unroll<T>([&](auto t) {
          const __m256i quad = broadcast_words(in.tile(tile) + t * kTileCols + j * 4);
          pairs[0][t].add_words(w0, quad);
          pairs[1][t].add_words(w1, quad);
        });
      }
    }
    unroll<T>([&](auto t) {
      const __m256i rows = _mm256_hadd_epi32(pairs[0][t].lanes, pairs[1][t].lanes);  // 0 1 4 5 2 3 6 7
      add_to(dots + t * kStride + eight, _mm256_permute4x64_epi64(rows, 0b11'01'10'00));
    });
  }
}

// ---- both ----

// sums[16] += scales * dots, sixteen rows from `row` on of one token.
[[gnu::always_inline]] inline void end_rows(const float* scales, const SlabMeta& meta, const std::int32_t* dots,
                                            float* sums) noexcept {
  unroll<2>([&](auto r) {
    const Index eight = r * kRegisterRows;
    const __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(scales + eight), _mm256_set1_ps(meta.scale));
    const __m256 exact = _mm256_cvtepi32_ps(load(dots + eight));
    _mm256_storeu_ps(sums + eight, _mm256_fmadd_ps(exact, scale, _mm256_loadu_ps(sums + eight)));
  });
}

// Functions that are never inlined: gcc 12 would keep sums of one T in memory for another's.

// One tile by T tokens.  dots [T][32]
template <DType kType, int T>
[[gnu::noinline]] void add_tile(const Slab<kType>& slab, Index tile, const Activations<kType, T>& in,
                                std::int32_t* dots) noexcept {
  for (Index row = 0; row < kPanelRows; row += kHalfRows) {
    add_rows<From::kMemory, T, kPanelRows>(slab, {tile, tile + 1}, row, in, dots + row);
  }
}

// A slab that streams from memory: tile by tile, as it lies there, of P panels in turns.  sums [P][T][32]
template <DType kType, int P, int T>
void multiply_streamed(const Slabs<kType>& slabs, const SlabColumns& x, const SlabMeta* meta, float* sums) noexcept {
  alignas(32) std::int32_t dots[P][T * kPanelRows];
  const Activations<kType, T> in(x);
  const auto halves = [](auto&& f) {
    for (int p = 0; p < P; ++p) {
      for (Index row = 0; row < kPanelRows; row += kHalfRows) f(p, row);
    }
  };
  halves([&](int p, Index row) { begin_rows<T, kPanelRows>(slabs[p], row, meta, dots[p] + row); });
  for (Index tile = 0; tile < slabs.tiles; ++tile) {
    for (int p = 0; p < P; ++p) add_tile<kType, T>(slabs[p], tile, in, dots[p]);
  }
  halves([&](int p, Index row) {
    for (Index t = 0; t < T; ++t) {
      const Index begin = t * kPanelRows + row;
      end_rows(slabs[p].scales() + row, meta[t], dots[p] + begin, sums + p * T * kPanelRows + begin);
    }
  });
}

// Sixteen rows from `row` on by T tokens, one slab.  sums [T][32]
template <DType kType, int T>
[[gnu::noinline]] void multiply_half(const Slab<kType>& slab, Index row, const Activations<kType, T>& in,
                                     const SlabMeta* meta, float* sums) noexcept {
  alignas(32) std::int32_t dots[T * kHalfRows];  // of this function: a tenth faster than of the caller
  begin_rows<T, kHalfRows>(slab, row, meta, dots);
  add_rows<From::kCache, T, kHalfRows>(slab, {0, slab.tiles}, row, in, dots);
  unroll<T>([&](auto t) { end_rows(slab.scales() + row, meta[t], dots + t * kHalfRows, sums + t * kPanelRows + row); });
}

// A slab that is in the L1 cache: half of its rows after the other, whose sums stay in registers.
template <DType kType, int T>
void multiply_cached(const Slab<kType>& slab, const SlabColumns& x, const SlabMeta* meta, float* sums) noexcept {
  const Activations<kType, T> in(x);
  for (Index row = 0; row < kPanelRows; row += kHalfRows) multiply_half<kType, T>(slab, row, in, meta, sums);
}

template <DType kType>
void packed_linear(const PackedLinearArgs& a) noexcept {
  if (a.tokens <= kFewTokens) {
    return with_constant<kFewTokens>(a.tokens, [&](auto n) {
      stream_panels<kType, n>(a, [&](auto p, const Slabs<kType>& slabs, const SlabColumns& x, const SlabMeta* meta,
                                     float* sums) { multiply_streamed<kType, p, n>(slabs, x, meta, sums); });
    });
  }
  multiply_panels<kType>(
      a, [](const Slab<kType>& slab, const SlabColumns& x, const SlabMeta* meta, Index tokens, float* sums) {
        // Groups of nearly the same size; the first one brings the slab into the cache.
        const Index groups = (tokens + kTokens - 1) / kTokens, group = (tokens + groups - 1) / groups;
        with_constant<kTokens>(group, [&](auto n) {
          multiply_streamed<kType, 1, n>(Slabs<kType>{slab.data, 0, slab.tiles}, x, meta, sums);
        });
        for (Index t = group; t < tokens; t += group) {
          with_constant<kTokens>(tokens - t < group ? tokens - t : group, [&](auto n) {
            multiply_cached<kType, n>(slab, x.from(t), meta + t, sums + t * kPanelRows);
          });
        }
      });
}

// ---- a scale for each block ----

// Without an instruction for products of bytes.
struct NoProducts {};
using Avx2 = Ymm<NoProducts>;

// Nibbles: the eight pairs of a block fit into 16 bits, as P4's.
template <>
struct BlockSum<Avx2, 4> {
  using R = Avx2::Register;
  static R begin(const std::int32_t* /*bias*/) noexcept { return R{}; }
  static void add(R& sum, R w, R x) noexcept {
    Sum words{(__m256i)sum};
    words.add_bytes((__m256i)w, (__m256i)x);
    sum = (R)words.lanes;
  }
  static void add(R& sum, R w, const std::int8_t* x) noexcept { add(sum, w, Avx2::broadcast(x)); }
  static R end(R sum, const std::int32_t* bias) noexcept {
    return Avx2::add_32(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)), Avx2::broadcast(bias));
  }
};

// Bytes: |q| by x with q's sign; a pair of products fits into 16 bits (2 * 128 * 127 < 2^15).
template <>
struct BlockSum<Avx2, 8> {
  using R = Avx2::Register;
  static R begin(const std::int32_t* /*bias*/) noexcept { return R{}; }
  static void add(R& sum, R w, R x) noexcept {
    const R q = w ^ Avx2::set_8(128);
    const R pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q));
    sum = Avx2::add_32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static void add(R& sum, R w, const std::int8_t* x) noexcept { add(sum, w, Avx2::broadcast(x)); }
  static R end(R sum, const std::int32_t* /*bias*/) noexcept { return sum; }
};

}  // namespace

void fill_avx2(KernelTable& table) noexcept {
  table.name = "avx2";
  fill_rows<xsimd::fma3<xsimd::avx2>>(table);
  table.packed_linear[DType::kP4] = packed_linear<DType::kP4>;
  table.packed_linear[DType::kP8] = packed_linear<DType::kP8>;
  table.packed_linear[DType::kQ8_0] = packed_linear_blocks<Avx2, DType::kQ8_0>;
  table.packed_linear[DType::kQ4_0] = packed_linear_blocks<Avx2, DType::kQ4_0>;
  table.packed_linear[DType::kQ4_1] = packed_linear_blocks<Avx2, DType::kQ4_1>;
  table.packed_linear[DType::kQ4_K] = packed_linear_blocks<Avx2, DType::kQ4_K>;
}

}  // namespace mixtral::kernels
