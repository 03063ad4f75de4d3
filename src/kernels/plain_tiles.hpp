// The matrix unit (amx_tiles.hpp) in plain code: what it computes, checked where there is no such unit, and what the
// unit itself is compared with before it is used.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "mixtral/core/types.hpp"

namespace mixtral::kernels {
namespace {

class PlainTiles {
 public:
  template <int T>
  void zero() noexcept {
    std::memset(tiles_[T], 0, sizeof tiles_[T]);
  }
  template <int T>
  void load(const void* from, std::ptrdiff_t step) noexcept {
    for (int r = 0; r < 16; ++r) std::memcpy(tiles_[T] + 64 * r, static_cast<const char*>(from) + r * step, 64);
  }
  static Index fewest_tokens() noexcept { return 0; }
  template <int C, int A, int B>
  void multiply_bytes() noexcept {
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 16; ++n) {
        std::int32_t sum;
        std::memcpy(&sum, tiles_[C] + 64 * m + 4 * n, sizeof sum);
        for (int k = 0; k < 64; ++k) {
          sum += static_cast<std::int8_t>(tiles_[A][64 * m + k]) * tiles_[B][64 * (k / 4) + 4 * n + k % 4];
        }
        std::memcpy(tiles_[C] + 64 * m + 4 * n, &sum, sizeof sum);
      }
    }
  }
  // As the unit rounds, but for denormal numbers, which it takes for zeros: from zero on, the even and the odd products
  // each added with one rounding in rising order, then their sum.
  template <int C, int A, int B>
  void multiply_pairs() noexcept {
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 16; ++n) {
        float sums[2] = {0, 0}, sum;
        for (int k = 0; k < 32; ++k) {
          sums[k % 2] = __builtin_fmaf(float_at(tiles_[A] + 64 * m + 2 * k),
                                       float_at(tiles_[B] + 64 * (k / 2) + 4 * n + k % 2 * 2), sums[k % 2]);
        }
        std::memcpy(&sum, tiles_[C] + 64 * m + 4 * n, sizeof sum);
        sum += sums[0] + sums[1];
        std::memcpy(tiles_[C] + 64 * m + 4 * n, &sum, sizeof sum);
      }
    }
  }
  template <int T>
  void store(void* to) const noexcept {
    std::memcpy(to, tiles_[T], sizeof tiles_[T]);
  }

 private:
  static float float_at(const unsigned char* bf16) noexcept {
    std::uint16_t half;
    std::memcpy(&half, bf16, sizeof half);
    return std::bit_cast<float>(std::uint32_t{half} << 16);
  }

  unsigned char tiles_[8][16 * 64];
};

}  // namespace
}  // namespace mixtral::kernels
