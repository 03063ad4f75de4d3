// AVX2 and FMA (Haswell, Zen and later). Runs only after dispatch.cpp has checked the CPU.
#include "kernels/isa.hpp"
#include "mixtral/ops/native_table.hpp"

namespace mixtral::kernels {

void fill_avx2(KernelTable& table) noexcept {
  table.name = "avx2";
  fill_rows<xsimd::fma3<xsimd::avx2>>(table);
}

}  // namespace mixtral::kernels
