// Blocks of the types that can be written, as a description of the format reads: slow, with the C library's rounding.
// Shares nothing with the library but the names of the types.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "mixtral/io/ggml_type.hpp"

namespace mixtral::test {

// The nearest number of 16 bits, of two the one with an even mantissa.
inline unsigned half_bits(float x) {
  const double size = std::abs(static_cast<double>(x));
  const int exponent = size == 0 ? -14 : std::max(std::ilogb(size), -14);
  const auto steps = static_cast<unsigned>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  // A subnormal has the exponent 0; a mantissa that is rounded up to 2048 carries into the exponent.
  const unsigned bits = steps < 1024 ? steps : steps - 1024 + (static_cast<unsigned>(exponent + 15) << 10);
  return bits | (std::signbit(x) ? 0x8000u : 0u);
}

namespace detail {

inline void put_half(std::vector<std::uint8_t>& out, float x) {
  out.push_back(static_cast<std::uint8_t>(half_bits(x) & 255));
  out.push_back(static_cast<std::uint8_t>(half_bits(x) >> 8));
}

inline void put_q8_0(std::vector<std::uint8_t>& out, const float* x) {
  float most = 0;
  for (int i = 0; i < 32; ++i) most = std::max(most, std::abs(x[i]));
  const float d = most / 127.0f, by = d == 0 ? 0 : 1.0f / d;
  put_half(out, d);
  for (int i = 0; i < 32; ++i) out.push_back(static_cast<std::uint8_t>(static_cast<int>(std::round(x[i] * by))));
}

inline void put_q4_0(std::vector<std::uint8_t>& out, const float* x) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) {
    if (std::abs(x[i]) > std::abs(largest)) largest = x[i];
  }
  const float d = largest / -8.0f, by = d == 0 ? 0 : 1.0f / d;
  put_half(out, d);
  const auto code = [&](int i) { return std::min(15, static_cast<int>(std::floor(x[i] * by + 8.5f))); };
  for (int i = 0; i < 16; ++i) out.push_back(static_cast<std::uint8_t>(code(i) + 16 * code(i + 16)));
}

}  // namespace detail

// All weights, whole blocks.
inline std::vector<std::uint8_t> encoded(GgmlType type, std::span<const float> x) {
  std::vector<std::uint8_t> out;
  for (std::size_t i = 0; i < x.size(); i += static_cast<std::size_t>(info_of(type).block_weights)) {
    if (type == GgmlType::kF16) {
      detail::put_half(out, x[i]);
    } else if (type == GgmlType::kQ8_0) {
      detail::put_q8_0(out, &x[i]);
    } else if (type == GgmlType::kQ4_0) {
      detail::put_q4_0(out, &x[i]);
    } else {
      const auto* bytes = reinterpret_cast<const std::uint8_t*>(&x[i]);
      out.insert(out.end(), bytes, bytes + sizeof(float));
    }
  }
  return out;
}

}  // namespace mixtral::test
