// The kernels of AVX2 with VNNI on plain code in place of vpdpbusd. Compiled for AVX2, so nothing else may be in here.
#include <immintrin.h>

#include "kernels/packed_avx2_vnni.hpp"

namespace mixtral::test {
namespace {

struct PlainProducts {
  static void add(__m256i& sum, __m256i unsigned_bytes, __m256i signed_bytes) noexcept {
    std::int32_t sums[8];
    std::uint8_t u[32];
    std::int8_t s[32];
    std::memcpy(sums, &sum, sizeof sums);
    std::memcpy(u, &unsigned_bytes, sizeof u);
    std::memcpy(s, &signed_bytes, sizeof s);
    for (int i = 0; i < 32; ++i) sums[i / 4] += u[i] * s[i];
    std::memcpy(&sum, sums, sizeof sums);
  }
};

}  // namespace

void fill_plain_byte_products(KernelTable& table) noexcept {
  table.name = "avx2_vnni on plain products";
  table.packed_linear[0] = kernels::packed_linear_avx2_vnni<kernels::Intel, 4, PlainProducts>;
  table.packed_linear[1] = kernels::packed_linear_avx2_vnni<kernels::Intel, 8, PlainProducts>;
}

}  // namespace mixtral::test
