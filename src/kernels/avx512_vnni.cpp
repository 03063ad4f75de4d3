// AVX-512 VNNI (Ice Lake, Zen 4 and later): products with packed weights. Runs only after dispatch.cpp has checked the
// CPU.
#include <immintrin.h>

#include "kernels/packed_vnni.hpp"

namespace mixtral::kernels {
namespace {

template <class Cpu, int Bits>
void packed_linear(const PackedLinearArgs& a) noexcept {
  a.tokens <= kNarrowTokens ? multiply_few<Cpu, Bits>(a) : multiply<Cpu, Bits>(a);
}

}  // namespace

void fill_avx512_vnni(KernelTable& table, CpuMaker maker) noexcept {
  table.name = "avx512_vnni";
  with_maker(maker, [&](auto cpu) {
    table.packed_linear[0] = packed_linear<decltype(cpu), 4>;
    table.packed_linear[1] = packed_linear<decltype(cpu), 8>;
  });
}

}  // namespace mixtral::kernels
