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

// c[16][16] int32 += a[16][64] bytes * b[16 quads][16][4] bytes
template <class A, class B>
void multiply_plain_bytes(const unsigned char* a, const unsigned char* b, unsigned char* c) noexcept {
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      std::int32_t sum;
      std::memcpy(&sum, c + 64 * m + 4 * n, sizeof sum);
      for (int k = 0; k < 64; ++k) {
        sum += static_cast<A>(a[64 * m + k]) * static_cast<B>(b[64 * (k / 4) + 4 * n + k % 4]);
      }
      std::memcpy(c + 64 * m + 4 * n, &sum, sizeof sum);
    }
  }
}

inline float plain_bf16_at(const unsigned char* p) noexcept {
  std::uint16_t half;
  std::memcpy(&half, p, sizeof half);
  return std::bit_cast<float>(std::uint32_t{half} << 16);
}

// c[16][16] float32 += a[16][32] bf16 * b[16 pairs][16][2] bf16. As the unit rounds, but for denormal numbers, which it
// takes for zeros: from zero on, the even and the odd products each added with one rounding in rising order, then their
// sum.
inline void multiply_plain_pairs(const unsigned char* a, const unsigned char* b, unsigned char* c) noexcept {
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      float sums[2] = {0, 0}, sum;
      for (int k = 0; k < 32; ++k) {
        sums[k % 2] = __builtin_fmaf(plain_bf16_at(a + 64 * m + 2 * k),
                                     plain_bf16_at(b + 64 * (k / 2) + 4 * n + k % 2 * 2), sums[k % 2]);
      }
      std::memcpy(&sum, c + 64 * m + 4 * n, sizeof sum);
      sum += sums[0] + sums[1];
      std::memcpy(c + 64 * m + 4 * n, &sum, sizeof sum);
    }
  }
}

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
  template <int T>
  void stream(const void* from, std::ptrdiff_t step) noexcept {
    load<T>(from, step);
  }
  template <int C, int A, int B>
  void multiply_bytes() noexcept {
    multiply_plain_bytes<std::int8_t, std::uint8_t>(tiles_[A], tiles_[B], tiles_[C]);
  }
  template <int C, int A, int B>
  void multiply_signed() noexcept {
    multiply_plain_bytes<std::int8_t, std::int8_t>(tiles_[A], tiles_[B], tiles_[C]);
  }
  template <int C, int A, int B>
  void multiply_pairs() noexcept {
    multiply_plain_pairs(tiles_[A], tiles_[B], tiles_[C]);
  }
  template <int T>
  void store(void* to) const noexcept {
    std::memcpy(to, tiles_[T], sizeof tiles_[T]);
  }

 private:
  unsigned char tiles_[8][16 * 64];
};

}  // namespace
}  // namespace mixtral::kernels
