// AMX-BF16 (Sapphire Rapids and later): products of bf16 pairs. Runs only after isa.cpp has checked the CPU and
// the system has given its permission.
#include <immintrin.h>

#include "kernels/amx_tiles.hpp"
#include "kernels/pairs_amx.hpp"

namespace mixtral::kernels {

bool amx_bf16_works() noexcept {
  alignas(64) bf16 a[16 * 32], b[16 * 32];
  for (int i = 0; i < 16 * 32; ++i) {  // small whole numbers: no order of the sums rounds
    a[i] = to_bf16(static_cast<float>(i * 37 % 31 - 15));
    b[i] = to_bf16(static_cast<float>(i * 59 % 29 - 14));
  }
  return as_plain_tiles(a, b, [](auto& unit) { unit.template multiply_pairs<3, 5, 6>(); });
}

void fill_amx_bf16(KernelTable& table) noexcept {
  table.linear_pairs = linear_pairs_tiles<AmxTiles>;
  table.pair_order = simd::PairOrder::kByPair;
}

}  // namespace mixtral::kernels
