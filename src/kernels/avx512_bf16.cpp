// AVX-512 BF16 (Cooper Lake, Sapphire Rapids, Zen 4 and later): products of bf16 pairs. Runs only after dispatch.cpp
// has checked the CPU.
#include <immintrin.h>

#include "kernels/isa.hpp"

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
  static void round(const float* x, bf16* out) noexcept {
    const Operand both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x));
    _mm512_storeu_si512(out, std::bit_cast<__m512i>(both));
  }
};

}  // namespace

void fill_avx512_bf16(KernelTable& table) noexcept { table.linear_pairs = simd::linear_pairs<xsimd::avx512bw, Pairs>; }

}  // namespace mixtral::kernels
