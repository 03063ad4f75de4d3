// AVX2 and AVX-VNNI (Alder Lake, Zen 5 and later, where there is no AVX-512): products with packed weights. Runs only
// after isa.cpp has checked the CPU.
#include <immintrin.h>

#include "kernels/packed_blocks.hpp"
#include "kernels/vnni_ymm.hpp"

namespace mixtral::kernels {
namespace {

// In assembly, in the order of the source: gcc 12 would load more activations ahead than there are registers for.
struct Products {
  static void bytes(__m256i& sum, __m256i w, __m256i x) noexcept {
    __m256i lanes = sum;
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(lanes) : "x"(w), "x"(x));
    sum = lanes;
  }
  static void words(__m256i& sum, __m256i w, __m256i x) noexcept {
    __m256i lanes = sum;
    asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(lanes) : "x"(w), "x"(x));
    sum = lanes;
  }
};

}  // namespace

void fill_avx2_vnni(KernelTable& table) noexcept {
  table.name = "avx2_vnni";
  table.packed_linear[DType::kP4] = packed_linear_vnni<Ymm<Products>, DType::kP4>;
  table.packed_linear[DType::kP8] = packed_linear_vnni<Ymm<Products>, DType::kP8>;
  table.packed_linear[DType::kQ8_0] = packed_linear_blocks<Ymm<Products>, DType::kQ8_0>;
  table.packed_linear[DType::kQ4_0] = packed_linear_blocks<Ymm<Products>, DType::kQ4_0>;
  table.packed_linear[DType::kQ4_1] = packed_linear_blocks<Ymm<Products>, DType::kQ4_1>;
  table.packed_linear[DType::kQ4_K] = packed_linear_blocks<Ymm<Products>, DType::kQ4_K>;
}

}  // namespace mixtral::kernels
