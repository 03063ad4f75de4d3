// Sixteen float32 lanes on any architecture: the one vector type that all row primitives are written in.
//
// A width that no architecture chooses makes results independent of it: lane l always holds the elements
// k = l (mod 16) and the lanes are always added in the same tree, whether they lie in one AVX-512 register,
// two AVX2 registers or an array. With a fused multiply-add in the architecture, as in AVX2, AVX-512 and
// NEON, every architecture therefore gives the same bits. (SSE2 has none: multiply, round, add.)
//
// Every function is a template on the architecture, so that two translation units with different compiler
// flags never share one instantiation.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <xsimd/xsimd.hpp>

#include "mixtral/core/float16.hpp"
#include "mixtral/core/types.hpp"

namespace mixtral::simd {

inline constexpr Index kLanes = 16;

// 1.5 * 2^23: adding it rounds a small number to a whole one, ties to even, and leaves that in the low bits.
inline constexpr float kRoundingMagic = 12582912.0f;

// The architecture of plain arrays: runs anywhere, needs no vector unit.
struct Scalar {};

// Calls f(std::integral_constant<int, i>) for i in [0, N), unrolled whatever the optimiser thinks of it:
// accumulators in arrays stay in registers only if every index is a constant.
template <int N, class F>
[[gnu::always_inline]] inline void unroll(F&& f) noexcept {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, I>{}), ...);
  }
  (std::make_integer_sequence<int, N>{});
}

// Calls f(std::integral_constant<int, n>) for n in [1, N].
template <int N, class F>
[[gnu::always_inline]] inline void with_constant(Index n, F&& f) noexcept {
  if constexpr (N > 0) {
    if (n == N) return f(std::integral_constant<int, N>{});
    with_constant<N - 1>(n, f);
  }
}

namespace detail {

// How a part of the lanes is held: one register, or one float for Scalar.
template <class Arch>
struct Part {
  using type = xsimd::batch<float, Arch>;
  static constexpr int size = static_cast<int>(type::size);
  static type load(const float* p) noexcept { return type::load_unaligned(p); }
  static void store(type v, float* p) noexcept { v.store_unaligned(p); }
  static type broadcast(float x) noexcept { return type(x); }
  // NEON's own max and min give a NaN where either operand is one.
  static constexpr bool kNanWins = std::is_base_of_v<xsimd::neon, Arch>;
  static type max(type a, type b) noexcept {
    if constexpr (kNanWins) return xsimd::select(a > b, a, b);
    return xsimd::max(a, b);
  }
  static type min(type a, type b) noexcept {
    if constexpr (kNanWins) return xsimd::select(a < b, a, b);
    return xsimd::min(a, b);
  }

  // xsimd 8.1 has no fused multiply-add for AVX-512 (it multiplies, rounds, adds). This one, NEON's division, the
  // widening loads and the horizontal steps of sum, largest and find are the only intrinsics in our headers.
  static type fma(type a, type b, type c) noexcept {
#if XSIMD_WITH_AVX512F
    if constexpr (std::is_base_of_v<xsimd::avx512f, Arch>) return _mm512_fmadd_ps(a, b, c);
#endif
    return xsimd::fma(a, b, c);
  }

  // xsimd 8.1 has a float32 division for NEON that multiplies by an estimate of 1 / b.
  static type div(type a, type b) noexcept {
#if XSIMD_WITH_NEON64
    if constexpr (std::is_base_of_v<xsimd::neon64, Arch>) return vdivq_f32(a, b);
#endif
    return a / b;
  }

  // The lower or upper half of every 32 bits, as a bfloat16.
  using Int = xsimd::batch<std::int32_t, Arch>;
  static Int load_words(const bf16* p) noexcept {
    return xsimd::bitwise_cast<Int>(load(reinterpret_cast<const float*>(p)));
  }
  static type low_halves(const bf16* p) noexcept { return xsimd::bitwise_cast<type>(load_words(p) << 16); }
  static type high_halves(const bf16* p) noexcept {
    return xsimd::bitwise_cast<type>(load_words(p) & Int(static_cast<std::int32_t>(0xffff0000)));
  }

  // Adds 2^n to the exponent, n being in the low bits of `magic` (see exp).
  static type scale_by_power(type x, type magic) noexcept {
    return xsimd::bitwise_cast<type>(xsimd::bitwise_cast<Int>(x) + (xsimd::bitwise_cast<Int>(magic) << 23));
  }
};

template <>
struct Part<Scalar> {
  using type = float;
  static constexpr int size = 1;
  static float load(const float* p) noexcept {
    float x;
    std::memcpy(&x, p, sizeof x);
    return x;
  }
  static void store(float v, float* p) noexcept { *p = v; }
  static float broadcast(float x) noexcept { return x; }
  static float max(float a, float b) noexcept { return a > b ? a : b; }
  static float min(float a, float b) noexcept { return a < b ? a : b; }
  static float fma(float a, float b, float c) noexcept { return std::fma(a, b, c); }
  static float div(float a, float b) noexcept { return a / b; }
  static float low_halves(const bf16* p) noexcept { return word(p, 0); }
  static float high_halves(const bf16* p) noexcept { return word(p, 1); }
  static float word(const bf16* p, int half) noexcept {
    std::uint16_t bits;
    std::memcpy(&bits, p + half, sizeof bits);
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  static float scale_by_power(float x, float magic) noexcept {
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(x) + (std::bit_cast<std::uint32_t>(magic) << 23));
  }
};

// Sixteen narrow numbers in one register of AVX-512, eight in one of AVX2.
#if XSIMD_WITH_AVX512F
template <class W>  // bf16 or f16
[[gnu::always_inline]] inline __m512 widen_16(__m256i bits) noexcept {
  if constexpr (std::is_same_v<W, f16>) return _mm512_cvtph_ps(bits);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
template <class W>
[[gnu::always_inline]] inline __m512 widen_16(const W* p) noexcept {
  return widen_16<W>(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
[[gnu::always_inline]] inline __m512 widen_16(const std::int8_t* p) noexcept {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
#endif
#if XSIMD_WITH_AVX2
// f16 without a branch: the exponent is rebased by an exact product. (F16C need not be there.)
template <class W>  // bf16 or f16
[[gnu::always_inline]] inline __m256 widen_8(__m128i narrow) noexcept {
  const __m256i bits = _mm256_cvtepu16_epi32(narrow);
  if constexpr (std::is_same_v<W, bf16>) return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
  const __m256i exponent = _mm256_set1_epi32(0x7c00);
  const __m256i rest = _mm256_slli_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x7fff)), 13);
  const __m256 magnitude = _mm256_mul_ps(_mm256_castsi256_ps(rest), _mm256_set1_ps(0x1p112f));
  const __m256i special = _mm256_and_si256(_mm256_cmpeq_epi32(_mm256_and_si256(bits, exponent), exponent),
                                           _mm256_set1_epi32(0x7f800000));  // infinity, NaN
  const __m256i sign = _mm256_slli_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x8000)), 16);
  return _mm256_or_ps(magnitude, _mm256_castsi256_ps(_mm256_or_si256(special, sign)));
}
template <class W>
[[gnu::always_inline]] inline __m256 widen_8(const W* p) noexcept {
  return widen_8<W>(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
[[gnu::always_inline]] inline __m256 widen_8(const std::int8_t* p) noexcept {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
#endif

}  // namespace detail

template <class Arch>
struct Lanes {
  using Part = detail::Part<Arch>;
  using Register = typename Part::type;
  static constexpr int kParts = static_cast<int>(kLanes) / Part::size;

  Register part[kParts];

  // ---- memory: any alignment -------------------------------------------------------------------
  [[gnu::always_inline]] static Lanes load(const float* p) noexcept {
    Lanes out;
    unroll<kParts>([&](auto i) { out.part[i] = Part::load(p + i * Part::size); });
    return out;
  }
  // Exact in float32.
  [[gnu::always_inline]] static Lanes load(const bf16* p) noexcept { return load_narrow(p); }
  [[gnu::always_inline]] static Lanes load(const f16* p) noexcept { return load_narrow(p); }
  [[gnu::always_inline]] static Lanes load(const std::int8_t* p) noexcept { return load_narrow(p); }
  // What 64 bytes hold, sixteen numbers in each of `out`. By the widest loads: the fewer instructions a line takes, the
  // more lines are asked for at a time.
  template <class W>
  static constexpr int kLineLanes = 64 / (static_cast<int>(kLanes) * static_cast<int>(sizeof(W)));
  template <class W>
  [[gnu::always_inline]] static void load_line(const W* p, Lanes (&out)[kLineLanes<W>]) noexcept {
#if XSIMD_WITH_AVX512F
    if constexpr (sizeof(W) == 2 && std::is_base_of_v<xsimd::avx512f, Arch>) {
      const __m512i bits = _mm512_loadu_si512(p);
      out[0].part[0] = Register(detail::widen_16<W>(_mm512_castsi512_si256(bits)));
      out[1].part[0] = Register(detail::widen_16<W>(_mm512_extracti64x4_epi64(bits, 1)));
      return;
    }
#endif
#if XSIMD_WITH_AVX2
    if constexpr (sizeof(W) == 2 && std::is_base_of_v<xsimd::avx2, Arch> && kParts == 2) {
      unroll<2>([&](auto i) {
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i * kLanes));
        out[i].part[0] = Register(detail::widen_8<W>(_mm256_castsi256_si128(bits)));
        out[i].part[1] = Register(detail::widen_8<W>(_mm256_extracti128_si256(bits, 1)));
      });
      return;
    }
#endif
    unroll<kLineLanes<W>>([&](auto i) { out[i] = load(p + i * kLanes); });
  }
  // Sixteen pairs: out[0] has the first of each, out[1] the second.
  [[gnu::always_inline]] static void load_pairs(const bf16* p, Lanes (&out)[2]) noexcept {
    unroll<kParts>([&](auto i) {
      const bf16* from = p + 2 * i * Part::size;
      out[0].part[i] = Part::low_halves(from);
      out[1].part[i] = Part::high_halves(from);
    });
  }

  // The first n < 16 elements; the other lanes are zero.
  template <class T>
  static Lanes load_first(const T* p, Index n) noexcept {
    T padded[kLanes] = {};
    std::memcpy(padded, p, static_cast<std::size_t>(n) * sizeof(T));
    return load(padded);
  }

  [[gnu::always_inline]] void store(float* p) const noexcept {
    unroll<kParts>([&](auto i) { Part::store(part[i], p + i * Part::size); });
  }
  void store_first(float* p, Index n) const noexcept {
    float all[kLanes];
    store(all);
    std::memcpy(p, all, static_cast<std::size_t>(n) * sizeof(float));
  }

  [[gnu::always_inline]] static Lanes broadcast(float x) noexcept {
    Lanes out;
    unroll<kParts>([&](auto i) { out.part[i] = Part::broadcast(x); });
    return out;
  }
  [[gnu::always_inline]] static Lanes zero() noexcept { return broadcast(0.0f); }

  // ---- arithmetic, lane by lane ------------------------------------------------------------------
  [[gnu::always_inline]] friend Lanes operator+(const Lanes& a, const Lanes& b) noexcept {
    return map([&](auto i) { return a.part[i] + b.part[i]; });
  }
  [[gnu::always_inline]] friend Lanes operator-(const Lanes& a, const Lanes& b) noexcept {
    return map([&](auto i) { return a.part[i] - b.part[i]; });
  }
  [[gnu::always_inline]] friend Lanes operator*(const Lanes& a, const Lanes& b) noexcept {
    return map([&](auto i) { return a.part[i] * b.part[i]; });
  }
  [[gnu::always_inline]] friend Lanes operator/(const Lanes& a, const Lanes& b) noexcept {
    return map([&](auto i) { return Part::div(a.part[i], b.part[i]); });
  }
  // a * b + c, rounded once where the architecture can.
  [[gnu::always_inline]] friend Lanes fma(const Lanes& a, const Lanes& b, const Lanes& c) noexcept {
    return map([&](auto i) { return Part::fma(a.part[i], b.part[i], c.part[i]); });
  }
  // b where the comparison is unordered, so that a NaN in b survives.
  [[gnu::always_inline]] friend Lanes max(const Lanes& a, const Lanes& b) noexcept {
    return map([&](auto i) { return Part::max(a.part[i], b.part[i]); });
  }
  [[gnu::always_inline]] friend Lanes min(const Lanes& a, const Lanes& b) noexcept {
    return map([&](auto i) { return Part::min(a.part[i], b.part[i]); });
  }

  // ---- reductions: 16 lanes to 8, 4, 2, 1, adding the upper half to the lower ----------------------
  [[gnu::always_inline]] float sum() const noexcept {
#if XSIMD_WITH_AVX
    if constexpr (kHasHalves) {
      const __m256 eight = halves();
      const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
      const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
      return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
    }
#endif
    float v[kLanes];
    store(v);
    for (Index half = kLanes / 2; half > 0; half /= 2) {
      for (Index l = 0; l < half; ++l) v[l] += v[l + half];
    }
    return v[0];
  }
  // out[i] = load(p + 16 i).sum() for i in [0, 8): the same additions, those of all eight side by side.
  static void sum_each_of_8(const float* p, float* out) noexcept {
#if XSIMD_WITH_AVX
    if constexpr (kHasHalves) {
      __m256 fours[4];  // of two rows each
      unroll<4>([&](auto i) {
        const __m256 a = load(p + 2 * i * kLanes).halves(), b = load(p + (2 * i + 1) * kLanes).halves();
        fours[i] = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
      });
      const auto twos = [](__m256 a, __m256 b) __attribute__((always_inline)) {
        return _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
      };
      const __m256 low = twos(fours[0], fours[1]), high = twos(fours[2], fours[3]);
      const __m256 sums = _mm256_add_ps(_mm256_shuffle_ps(low, high, 0x44), _mm256_shuffle_ps(low, high, 0xee));
      const __m128 even = _mm256_castps256_ps128(sums), odd = _mm256_extractf128_ps(sums, 1);
      _mm_storeu_ps(out, _mm_unpacklo_ps(even, odd));
      _mm_storeu_ps(out + 4, _mm_unpackhi_ps(even, odd));
      return;
    }
#endif
    for (Index i = 0; i < 8; ++i) out[i] = load(p + i * kLanes).sum();
  }
  // The largest lane; any lane order gives the same value. Unspecified with a NaN among them.
  [[gnu::always_inline]] float largest() const noexcept {
#if XSIMD_WITH_AVX512F
    if constexpr (std::is_base_of_v<xsimd::avx512f, Arch>) return _mm512_reduce_max_ps(part[0]);
#endif
#if XSIMD_WITH_AVX
    if constexpr (std::is_base_of_v<xsimd::avx, Arch>) {
      const __m256 eight = _mm256_max_ps(part[0], part[1]);
      const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
      const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
      return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
    }
#endif
    float v[kLanes];
    store(v);
    float best = v[0];
    for (const float x : v) best = x > best ? x : best;
    return best;
  }
  // The lowest lane that equals x; kLanes if none does.
  [[gnu::always_inline]] int find(float x) const noexcept {
#if XSIMD_WITH_AVX512F
    if constexpr (std::is_base_of_v<xsimd::avx512f, Arch>) {
      const unsigned mask = _mm512_cmpeq_ps_mask(part[0], _mm512_set1_ps(x));
      return std::countr_zero(mask | 0x10000u);
    }
#endif
#if XSIMD_WITH_AVX
    if constexpr (std::is_base_of_v<xsimd::avx, Arch>) {
      const __m256 want = _mm256_set1_ps(x);
      const auto low = static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(part[0], want, _CMP_EQ_OQ)));
      const auto high = static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(part[1], want, _CMP_EQ_OQ)));
      return std::countr_zero(low | high << 8 | 0x10000u);
    }
#endif
    float v[kLanes];
    store(v);
    int lane = 0;
    while (lane < kLanes && !(v[lane] == x)) ++lane;
    return lane;
  }
  float first() const noexcept {
    float v[kLanes];
    store(v);
    return v[0];
  }

  template <class F>
  [[gnu::always_inline]] static Lanes map(F&& f) noexcept {
    Lanes out;
    unroll<kParts>([&](auto i) { out.part[i] = f(i); });
    return out;
  }

 private:
#if XSIMD_WITH_AVX
  static constexpr bool kHasHalves =
      std::is_base_of_v<xsimd::avx, Arch> || std::is_base_of_v<xsimd::avx512f, Arch>;  // in 8 lanes of a register
  // The upper half added to the lower.
  [[gnu::always_inline]] __m256 halves() const noexcept {
#if XSIMD_WITH_AVX512F
    if constexpr (std::is_base_of_v<xsimd::avx512f, Arch>) {
      const __m512d both = _mm512_castps_pd(part[0]);
      return _mm256_add_ps(_mm512_castps512_ps256(part[0]), _mm256_castpd_ps(_mm512_extractf64x4_pd(both, 1)));
    } else
#endif
    {
      return _mm256_add_ps(part[0], part[1]);
    }
  }
#endif
  template <class T>
  [[gnu::always_inline]] static Lanes load_narrow(const T* p) noexcept {
#if XSIMD_WITH_AVX512F
    if constexpr (std::is_base_of_v<xsimd::avx512f, Arch>) {
      Lanes out;
      out.part[0] = Register(detail::widen_16(p));
      return out;
    }
#endif
#if XSIMD_WITH_AVX2
    if constexpr (std::is_base_of_v<xsimd::avx2, Arch>) {
      return map([&](auto i) { return Register(detail::widen_8(p + i * Part::size)); });
    }
#endif
    return widen_each(p);
  }
  static Lanes widen_each(const std::int8_t* p) noexcept {
    float wide[kLanes];
    for (int l = 0; l < kLanes; ++l) wide[l] = static_cast<float>(p[l]);
    return load(wide);
  }
  template <class T>
  static Lanes widen_each(const T* p) noexcept {
    std::uint16_t bits[kLanes];
    std::memcpy(bits, p, sizeof bits);  // weights in files have any alignment
    float wide[kLanes];
    for (int l = 0; l < kLanes; ++l) wide[l] = widen_bits(bits[l], T{});
    return load(wide);
  }
  [[gnu::always_inline]] static float widen_bits(std::uint16_t bits, bf16) noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  // Without a branch, so that the loop above vectorises: the exponent is rebased by an exact product.
  [[gnu::always_inline]] static float widen_bits(std::uint16_t bits, f16) noexcept {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
    const std::uint32_t rest = static_cast<std::uint32_t>(bits & 0x7fffu) << 13;
    const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(std::bit_cast<float>(rest) * 0x1p112f);
    const std::uint32_t special = (bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;  // infinity, NaN
    return std::bit_cast<float>(magnitude | special | sign);
  }
};

// Where a < b: x, otherwise y, also where the comparison is unordered.
template <class Arch>
[[gnu::always_inline]] inline Lanes<Arch> where_less(const Lanes<Arch>& a, const Lanes<Arch>& b, const Lanes<Arch>& x,
                                                     const Lanes<Arch>& y) noexcept {
  return Lanes<Arch>::map([&](auto i) {
    if constexpr (std::is_same_v<Arch, Scalar>) {
      return a.part[i] < b.part[i] ? x.part[i] : y.part[i];
    } else {
      return xsimd::select(a.part[i] < b.part[i], x.part[i], y.part[i]);
    }
  });
}

// e^x with a relative error below 2e-7. Below -87.3 (e^x < 2^-126) the result is 0, above 88.3 it is e^88.3.
// NaN stays NaN. Cody-Waite reduction to |r| <= ln(2)/2 and a polynomial of degree 6 (Cephes' coefficients).
template <class Arch>
[[gnu::always_inline]] inline Lanes<Arch> exp(const Lanes<Arch>& x0) noexcept {
  using V = Lanes<Arch>;
  constexpr float kLowest = -87.3f, kHighest = 88.3f;
  const V x = max(V::broadcast(kLowest), min(V::broadcast(kHighest), x0));
  const V magic = fma(x, V::broadcast(1.44269504088896341f), V::broadcast(kRoundingMagic));  // round(x / ln 2)
  const V n = magic - V::broadcast(kRoundingMagic);
  V r = fma(n, V::broadcast(-0.693359375f), x);
  r = fma(n, V::broadcast(2.12194440e-4f), r);
  V p = V::broadcast(1.9875691500e-4f);
  p = fma(p, r, V::broadcast(1.3981999507e-3f));
  p = fma(p, r, V::broadcast(8.3334519073e-3f));
  p = fma(p, r, V::broadcast(4.1665795894e-2f));
  p = fma(p, r, V::broadcast(1.6666665459e-1f));
  p = fma(p, r, V::broadcast(5.0000001201e-1f));
  p = fma(p * r, r, r) + V::broadcast(1.0f);
  const V y = V::map([&](auto i) { return V::Part::scale_by_power(p.part[i], magic.part[i]); });
  // Zero for what was below the range, -infinity included; a NaN compares false and stays.
  return where_less(x0, V::broadcast(kLowest), V::zero(), y);
}

}  // namespace mixtral::simd
