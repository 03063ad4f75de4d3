// The register of packed_vnni.hpp on AVX2. `Products` is AVX2's VNNI, or code that does the same:
//   bytes(sum, w, x)  sum[8] int32 += the four products of unsigned bytes w and signed bytes x
//   words(sum, w, x)  sum[8] int32 += the two products of words
#pragma once

#include "kernels/packed_vnni.hpp"

namespace mixtral::kernels {
namespace {

template <class Products>
struct Ymm : VectorOps<sizeof(__m256i)> {
  using Floats = __m256;
  static constexpr int kRows = 8;
  // 16 registers. Up to 2 * 6 sums beside 2 weights, an activation and, for P4, scales and masks, some of them in
  // memory.
  static constexpr int kFewTokens = 8, kPairTokens = 6, kSplitSums = 2;
  // 2 * 6 sums, 2 weights and a broadcast.
  static constexpr int kTileTokens = 6;
  // With a scale for each block, two sums of a few tokens' nibbles; 2 * 6 sums of one block, those of the slab in
  // memory.
  static constexpr int kFewBlockTokens = 6, kPairBlockTokens = 3, kBlockTokens = 6;

  // Eight bytes to 32 bits each.
  static Register widen(const std::byte* p) noexcept {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }
  // Bytes a, b, c, d of each 32-bit lane.
  static Register shuffle(Register x, char a, char b, char c, char d) noexcept {
    return _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(bytes_of_lanes(a, b, c, d)));
  }
  static Register times_high_16(Register a, Register b) noexcept { return _mm256_mulhi_epu16(a, b); }
  static Floats load_floats(const float* p) noexcept { return _mm256_loadu_ps(p); }
  static Floats load_halves(const std::byte* p) noexcept {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Floats floats(float x) noexcept { return _mm256_set1_ps(x); }
  static Floats to_floats(Register x) noexcept { return _mm256_cvtepi32_ps(x); }
  static Floats fma(Floats a, Floats b, Floats c) noexcept { return _mm256_fmadd_ps(a, b, c); }
  static void store_floats(float* p, Floats x) noexcept { _mm256_storeu_ps(p, x); }
  // sums = fma(exact, scales * scale, sums)
  static void add_scaled(Register exact, Floats scales, float scale, float* sums) noexcept {
    const Floats both = _mm256_mul_ps(scales, _mm256_set1_ps(scale));
    _mm256_storeu_ps(sums, _mm256_fmadd_ps(_mm256_cvtepi32_ps(exact), both, _mm256_loadu_ps(sums)));
  }

  static void dot(Register& sum, Register w, Register x) noexcept { Products::bytes(sum, w, x); }
  static constexpr bool kQuadInProduct = false;
  static void dot_quad(Register& sum, Register w, const std::int8_t* x) noexcept {
    Products::bytes(sum, w, broadcast(x));
  }
  static void dot_pair(Register& sum, Register w, const std::int16_t* x) noexcept {
    Products::words(sum, w, broadcast(x));
  }
};

}  // namespace
}  // namespace mixtral::kernels
