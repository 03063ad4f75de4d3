// AMX-INT8 (Sapphire Rapids and later): products with packed weights for 16 tokens and more. Runs only after
// dispatch.cpp has checked the CPU and the system has given its permission.
#include <immintrin.h>

#include "kernels/packed_amx.hpp"
#include "kernels/plain_tiles.hpp"

namespace mixtral::kernels {
namespace {

// The unit of this thread: configured while the object lives, so that nothing of it is left behind. In assembly, since
// the compiler's own functions for tiles hide what memory they read.
class AmxTiles {
 public:
  AmxTiles() noexcept {
    struct alignas(64) {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    static_assert(sizeof config == 64);
    asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
  }
  ~AmxTiles() { asm volatile("tilerelease" : : : "memory"); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  template <int T>
  void zero() noexcept {
    asm volatile("tilezero %%tmm%c0" : : "i"(T));
  }
  template <int T>
  void load(const void* from, std::ptrdiff_t step) noexcept {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(step), "i"(T) : "memory");
  }
  template <int C, int A, int B>
  void multiply() noexcept {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
  template <int T>
  void store(void* to) noexcept {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(std::ptrdiff_t{64}), "i"(T) : "memory");
  }
};

}  // namespace

bool amx_int8_works() noexcept {
  alignas(64) std::int8_t a[16 * 64];
  alignas(64) std::uint8_t b[16 * 64];
  for (int i = 0; i < 16 * 64; ++i) {
    a[i] = static_cast<std::int8_t>(i * 37 - i / 7);
    b[i] = static_cast<std::uint8_t>(i * 59 + i / 5);
  }
  std::int32_t want[16 * 16], got[16 * 16];
  const auto run = [&](auto&& unit, std::int32_t* out) {
    unit.template zero<3>();
    unit.template load<5>(a, 64);
    unit.template load<6>(b, 64);
    for (int i = 0; i < 3; ++i) unit.template multiply<3, 5, 6>();
    unit.template store<3>(out);
  };
  run(PlainTiles(), want);
  run(AmxTiles(), got);
  return std::memcmp(want, got, sizeof want) == 0;
}

void fill_amx_int8(KernelTable& table) noexcept {
  table.name = "amx_int8";
  table.packed_linear[0] = packed_linear_tiles<4, AmxTiles>;
  table.packed_linear[1] = packed_linear_tiles<8, AmxTiles>;
}

}  // namespace mixtral::kernels
