// AVX-512 BF16 (Cooper Lake, Sapphire Rapids, Zen 4 and later): products of bf16 pairs. Runs only after isa.cpp
// has checked the CPU.
#include <immintrin.h>

#include "kernels/fill.hpp"

namespace mixtral::kernels {
namespace {

using V = simd::Lanes<xsimd::avx512bw>;

struct Pairs {
  static constexpr int kRows = 4, kTokens = 6;  // 24 sums, 4 + 1 operands of 32 registers
  using Operand = __m512bh;
  [[gnu::always_inline]] static Operand load(const bf16* p) noexcept {
    return std::bit_cast<Operand>(_mm512_loadu_si512(p));
  }
  [[gnu::always_inline]] static V add(const V& sum, const Operand& w, const Operand& x) noexcept {
    V out;
    out.part[0] = V::Register(_mm512_dpbf16_ps(sum.part[0], w, x));
    return out;
  }
};

void round_32(const float* x, bf16* out) noexcept {
  const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));
  _mm512_storeu_si512(out, std::bit_cast<__m512i>(both));
}

void round_bf16(const float* x, Index n, bf16* out) noexcept {
  Index i = 0;
  for (; i + 32 <= n; i += 32) round_32(x + i, out + i);
  if (i == n) return;
  float padded[32] = {};
  bf16 rounded[32];
  std::memcpy(padded, x + i, static_cast<std::size_t>(n - i) * sizeof(float));
  round_32(padded, rounded);
  std::memcpy(out + i, rounded, static_cast<std::size_t>(n - i) * sizeof(bf16));
}

}  // namespace

void fill_avx512_bf16(KernelTable& table) noexcept {
  table.linear_pairs = simd::linear_pairs<xsimd::avx512bw, Pairs>;
  table.round_bf16 = round_bf16;
}

}  // namespace mixtral::kernels
