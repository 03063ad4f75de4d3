// The register of packed_vnni.hpp on AVX-512 VNNI (Ice Lake, Zen 4 and later).
#pragma once

#include "kernels/packed_vnni.hpp"

namespace mixtral::kernels {
namespace {

struct Zmm : VectorOps<sizeof(__m512i)> {
  using Floats = __m512;
  static constexpr int kRows = 16;
  // 32 registers: 16 sums beside 4 scales, 2 masks, 2 weights. vpdpbusd takes 5 cycles, 2 start in each: fewer than
  // some ten sums wait for each other.
  static constexpr int kFewTokens = 16, kPairTokens = 8, kSplitSums = 8;
  // 2 * 12 sums, 2 weights and a broadcast.
  static constexpr int kTileTokens = 12;
  // With a scale for each block, two sums of a few tokens' nibbles; 2 * 6 sums of one block and as many of the slab.
  static constexpr int kFewBlockTokens = 12, kPairBlockTokens = 6, kBlockTokens = 6;

  // Sixteen bytes to 32 bits each.
  static Register widen(const std::byte* p) noexcept {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  // Bytes a, b, c, d of each 32-bit lane.
  static Register shuffle(Register x, char a, char b, char c, char d) noexcept {
    return _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(bytes_of_lanes(a, b, c, d)));
  }
  static Register times_high_16(Register a, Register b) noexcept { return _mm512_mulhi_epu16(a, b); }
  static Floats load_floats(const float* p) noexcept { return _mm512_loadu_ps(p); }
  static Floats load_halves(const std::byte* p) noexcept {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Floats floats(float x) noexcept { return _mm512_set1_ps(x); }
  static Floats to_floats(Register x) noexcept { return _mm512_cvtepi32_ps(x); }
  static Floats fma(Floats a, Floats b, Floats c) noexcept { return _mm512_fmadd_ps(a, b, c); }
  static void store_floats(float* p, Floats x) noexcept { _mm512_storeu_ps(p, x); }
  // sums = fma(exact, scales * scale, sums)
  static void add_scaled(Register exact, Floats scales, float scale, float* sums) noexcept {
    const Floats both = _mm512_mul_ps(scales, _mm512_set1_ps(scale));
    _mm512_storeu_ps(sums, _mm512_fmadd_ps(_mm512_cvtepi32_ps(exact), both, _mm512_loadu_ps(sums)));
  }

  // In assembly: gcc 12 would copy sums, or keep them in memory.
  static void dot(Register& sum, Register w, Register x) noexcept {
    Register lanes = sum;
    asm("vpdpbusd %2, %1, %0" : "+v"(lanes) : "v"(w), "v"(x));
    sum = lanes;
  }
  static constexpr bool kQuadInProduct = true;
  // In assembly, so that the broadcast is part of the instruction.
  static void dot_quad(Register& sum, Register w, const std::int8_t* x) noexcept {
    Register lanes = sum;
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(lanes) : "v"(w), "m"(*reinterpret_cast<const std::int32_t*>(x)));
    sum = lanes;
  }
  static void dot_pair(Register& sum, Register w, const std::int16_t* x) noexcept {
    Register lanes = sum;
    asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(lanes) : "v"(w), "m"(*reinterpret_cast<const std::int32_t*>(x)));
    sum = lanes;
  }
};

}  // namespace
}  // namespace mixtral::kernels
