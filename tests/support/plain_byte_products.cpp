// The kernels of AVX2 with VNNI on plain code in place of vpdpbusd and vpdpwssd. Compiled for AVX2, so nothing else may
// be in here.
#include <immintrin.h>

#include "kernels/packed_blocks.hpp"
#include "kernels/vnni_ymm.hpp"

namespace mixtral::test {
namespace {

template <class U, class S>
void add_products(__m256i& sum, __m256i w, __m256i x) noexcept {
  constexpr int kNumbers = sizeof(__m256i) / sizeof(U);
  std::int32_t sums[8];
  U ws[kNumbers];
  S xs[kNumbers];
  std::memcpy(sums, &sum, sizeof sums);
  std::memcpy(ws, &w, sizeof ws);
  std::memcpy(xs, &x, sizeof xs);
  for (int i = 0; i < kNumbers; ++i) sums[i * 8 / kNumbers] += ws[i] * xs[i];
  std::memcpy(&sum, sums, sizeof sums);
}

struct PlainProducts {
  static void bytes(__m256i& sum, __m256i w, __m256i x) noexcept { add_products<std::uint8_t, std::int8_t>(sum, w, x); }
  static void words(__m256i& sum, __m256i w, __m256i x) noexcept {
    add_products<std::int16_t, std::int16_t>(sum, w, x);
  }
};

}  // namespace

void fill_plain_byte_products(KernelTable& table) noexcept {
  table.name = "avx2_vnni on plain products";
  table.packed_linear[DType::kP4] = kernels::packed_linear_vnni<kernels::Ymm<PlainProducts>, DType::kP4>;
  table.packed_linear[DType::kP8] = kernels::packed_linear_vnni<kernels::Ymm<PlainProducts>, DType::kP8>;
  table.packed_linear[DType::kQ8_0] = kernels::packed_linear_blocks<kernels::Ymm<PlainProducts>, DType::kQ8_0>;
  table.packed_linear[DType::kQ4_0] = kernels::packed_linear_blocks<kernels::Ymm<PlainProducts>, DType::kQ4_0>;
  table.packed_linear[DType::kQ4_1] = kernels::packed_linear_blocks<kernels::Ymm<PlainProducts>, DType::kQ4_1>;
  table.packed_linear[DType::kQ4_K] = kernels::packed_linear_blocks<kernels::Ymm<PlainProducts>, DType::kQ4_K>;
}

}  // namespace mixtral::test
