// AVX-512 VNNI (Ice Lake, Zen 4 and later): products with packed weights. Runs only after isa.cpp has checked the
// CPU.
#include <immintrin.h>

#include "kernels/vnni_zmm.hpp"

namespace mixtral::kernels {

void fill_avx512_vnni(KernelTable& table) noexcept {
  table.name = "avx512_vnni";
  table.packed_linear[DType::kP4] = packed_linear_vnni<Zmm, 4>;
  table.packed_linear[DType::kP8] = packed_linear_vnni<Zmm, 8>;
}

}  // namespace mixtral::kernels
