// The code books of GGML's i-quants: which eight, or four, values an index in a block stands for. They are numbers of
// the format, like its block sizes, and follow no formula.
#pragma once

#include <array>
#include <cstdint>

namespace mixtral {

// A row holds its values as bytes, the first in the lowest byte. Indices run over the whole array.
extern const std::array<std::uint64_t, 256> kIq2XxsRows;  // magnitudes: 8, 25, 43
extern const std::array<std::uint64_t, 512> kIq2XsRows;   // as above
extern const std::array<std::uint64_t, 1024> kIq2SRows;   // as above
extern const std::array<std::uint32_t, 256> kIq3XxsRows;  // magnitudes: 4, 12, 20, ..., 52, and 62
extern const std::array<std::uint32_t, 512> kIq3SRows;    // magnitudes: 1, 3, ..., 15
extern const std::array<std::uint64_t, 2048> kIq1Rows;    // of IQ1_S and IQ1_M: 0, 1, 2 for -1, 0, 1

// Of IQ4_NL and IQ4_XS: what a code of four bits stands for.
inline constexpr std::array<std::int8_t, 16> kIq4Values = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                           1,    13,   25,  38,  53,  69,  89,  113};

// The signs of eight weights in seven bits, 1 for a minus: the eighth is such that their number is even.
constexpr std::uint8_t signs_of(std::uint32_t seven_bits) noexcept {
  std::uint32_t parity = seven_bits ^ seven_bits >> 4;
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return static_cast<std::uint8_t>(seven_bits | (parity & 1) << 7);
}

}  // namespace mixtral
