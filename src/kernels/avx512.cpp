// AVX-512 F, CD, DQ, BW, VL (Skylake-X, Zen 4 and later). Runs only after isa.cpp has checked the CPU. Products
// with packed weights stay those of AVX2.
#include "kernels/fill.hpp"
#include "mixtral/ops/native_table.hpp"

namespace mixtral::kernels {

void fill_avx512(KernelTable& table) noexcept {
  table.name = "avx512";
  fill_rows<xsimd::avx512bw>(table);
}

}  // namespace mixtral::kernels
