// AVX-512 VNNI (Ice Lake, Zen 4 and later): products with packed weights. Runs only after isa.cpp has checked the
// CPU.
#include <immintrin.h>

#include "kernels/packed_blocks.hpp"
#include "kernels/vnni_zmm.hpp"

namespace mixtral::kernels {

void fill_avx512_vnni(KernelTable& table) noexcept {
  table.name = "avx512_vnni";
  table.packed_linear[DType::kP4] = packed_linear_vnni<Zmm, DType::kP4>;
  table.packed_linear[DType::kP8] = packed_linear_vnni<Zmm, DType::kP8>;
  table.packed_linear[DType::kQ8_0] = packed_linear_blocks<Zmm, DType::kQ8_0>;
  table.packed_linear[DType::kQ4_0] = packed_linear_blocks<Zmm, DType::kQ4_0>;
  table.packed_linear[DType::kQ4_1] = packed_linear_blocks<Zmm, DType::kQ4_1>;
  table.packed_linear[DType::kQ4_K] = packed_linear_blocks<Zmm, DType::kQ4_K>;
}

}  // namespace mixtral::kernels
