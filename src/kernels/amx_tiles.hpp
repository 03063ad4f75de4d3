// The matrix unit of Sapphire Rapids and later (AMX): eight tiles of 16 rows of 64 bytes. Included by files of its
// instruction sets, hence the unnamed namespace; runs only after isa.cpp has checked the CPU and the system has
// given its permission.
//
// Kernels are templates over the unit, so that plain code can take its place (plain_tiles.hpp):
//   zero<C>()                  tile C = 0
//   load<T>(from, step)        tile T = 16 rows of 64 bytes, `step` bytes apart
//   stream<T>(from, step)      the same; the L1 cache need not keep them
//   multiply_bytes<C, A, B>()  C[16][16] int32 += A[16][64] signed bytes * B[16 quads][16][4] unsigned bytes
//   multiply_signed<C, A, B>() the same with signed bytes in both
//   multiply_pairs<C, A, B>()  C[16][16] float32 += A[16][32] bf16 * B[16 pairs][16][2] bf16
//   store<C>(to)               16 rows of 64 bytes, one after the other
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/fill.hpp"
#include "kernels/plain_tiles.hpp"

namespace mixtral::kernels {
namespace {

// This thread's: configured while the object lives, so that nothing of it is left behind. In assembly, since the
// compiler's own functions for tiles hide what memory they read.
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
  template <int T>
  void stream(const void* from, std::ptrdiff_t step) noexcept {
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(step), "i"(T) : "memory");
  }
  template <int C, int A, int B>
  void multiply_signed() noexcept {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
  template <int C, int A, int B>
  void multiply_bytes() noexcept {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
  template <int C, int A, int B>
  void multiply_pairs() noexcept {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
  }
  template <int T>
  void store(void* to) noexcept {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(std::ptrdiff_t{64}), "i"(T) : "memory");
  }
};

// Whether the unit gives the bits of plain code for tile 3 += tile 5 * tile 6, three times.  a, b: a tile each
template <class Multiply>
bool as_plain_tiles(const void* a, const void* b, Multiply&& multiply) noexcept {
  const auto run = [&](auto&& unit, std::byte* out) {
    unit.template zero<3>();
    unit.template stream<5>(a, 64);
    unit.template load<6>(b, 64);
    for (int i = 0; i < 3; ++i) multiply(unit);
    unit.template store<3>(out);
  };
  std::byte want[16 * 64], got[16 * 64];
  run(PlainTiles(), want);
  run(AmxTiles(), got);
  return std::memcmp(want, got, sizeof want) == 0;
}

}  // namespace
}  // namespace mixtral::kernels
