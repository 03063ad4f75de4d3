// AVX2 and AVX-VNNI (Alder Lake, Zen 5 and later, where there is no AVX-512): products with packed weights. Runs only
// after dispatch.cpp has checked the CPU.
#include <immintrin.h>

#include "kernels/packed_avx2_vnni.hpp"

namespace mixtral::kernels {
namespace {

// In assembly, in the order of the source: gcc 12 would load more activations ahead than there are registers for.
struct ByteProducts {
  static void add(__m256i& sum, __m256i unsigned_bytes, __m256i signed_bytes) noexcept {
    __m256i sums = sum;
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(unsigned_bytes), "x"(signed_bytes));
    sum = sums;
  }
};

}  // namespace

void fill_avx2_vnni(KernelTable& table, CpuMaker maker) noexcept {
  table.name = "avx2_vnni";
  with_maker(maker, [&](auto cpu) {
    table.packed_linear[0] = packed_linear_avx2_vnni<decltype(cpu), 4, ByteProducts>;
    table.packed_linear[1] = packed_linear_avx2_vnni<decltype(cpu), 8, ByteProducts>;
  });
}

}  // namespace mixtral::kernels
