// AMX-INT8 (Sapphire Rapids and later): products with packed weights for many tokens. Runs only after isa.cpp has
// checked the CPU and the system has given its permission.
#include <immintrin.h>

#include "kernels/amx_tiles.hpp"
#include "kernels/packed_amx.hpp"

namespace mixtral::kernels {

bool amx_int8_works() noexcept {
  alignas(64) std::int8_t a[16 * 64];
  alignas(64) std::uint8_t b[16 * 64];
  for (int i = 0; i < 16 * 64; ++i) {
    a[i] = static_cast<std::int8_t>(i * 37 - i / 7);
    b[i] = static_cast<std::uint8_t>(i * 59 + i / 5);
  }
  return as_plain_tiles(a, b, [](auto& unit) { unit.template multiply_bytes<3, 5, 6>(); }) &&
         as_plain_tiles(a, b, [](auto& unit) { unit.template multiply_signed<3, 5, 6>(); });
}

void fill_amx_int8(KernelTable& table) noexcept {
  table.name = "amx_int8";
  table.packed_linear_tiles[DType::kP4] = packed_linear_tiles<DType::kP4, AmxTiles>;
  table.packed_linear_tiles[DType::kP8] = packed_linear_tiles<DType::kP8, AmxTiles>;
}

}  // namespace mixtral::kernels
