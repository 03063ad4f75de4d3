#include "mixtral/core/float16.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "support/random.hpp"

using namespace mixtral;

namespace {

// A second definition: sign, exponent and mantissa as the formats' standards give them, in double.
double decode(unsigned bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, top = (1 << exponent_bits) - 1;
  const double sign = (bits >> 15) != 0 ? -1 : 1;
  const int exponent = static_cast<int>(bits >> mantissa_bits) & top;
  const double fraction = static_cast<double>(bits & ((1u << mantissa_bits) - 1)) * std::ldexp(1.0, -mantissa_bits);
  if (exponent == top) return fraction != 0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * fraction * std::ldexp(1.0, 1 - bias);
  return sign * (1 + fraction) * std::ldexp(1.0, exponent - bias);
}
double decode(bf16 x) { return decode(x.bits, 8, 7); }
double decode(f16 x) { return decode(x.bits, 5, 10); }

bf16 encode(float x, bf16) { return to_bf16(x); }
f16 encode(float x, f16) { return to_f16(x); }

bool is_nan(bf16 x) { return (x.bits & 0x7fff) > 0x7f80; }
bool is_nan(f16 x) { return (x.bits & 0x7fff) > 0x7c00; }

template <class T>
void check_all_values() {
  int wrong = 0;
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const T x{static_cast<std::uint16_t>(bits)};
    const float wide = to_float(x);
    if (is_nan(x)) {
      wrong += !std::isnan(wide) || !is_nan(encode(wide, T{}));
    } else {
      wrong += static_cast<double>(wide) != decode(x) || std::signbit(wide) != ((bits >> 15) != 0);
      wrong += encode(wide, T{}).bits != bits;
    }
  }
  CHECK(wrong == 0);
}

// Between each value and the next one up: the middle goes to the even one, either side of it to the nearer.
template <class T>
void check_all_ties(unsigned largest) {
  int wrong = 0;
  for (unsigned bits = 0; bits < largest; ++bits) {
    const double low = decode(T{static_cast<std::uint16_t>(bits)});
    const double high = decode(T{static_cast<std::uint16_t>(bits + 1)});
    const auto middle = static_cast<float>((low + high) / 2);
    if (static_cast<double>(middle) != (low + high) / 2) continue;  // no float32 lies there
    const unsigned even = bits + bits % 2;
    const float infinity = std::numeric_limits<float>::infinity();
    wrong += encode(middle, T{}).bits != even;
    wrong += encode(-middle, T{}).bits != (even | 0x8000u);
    wrong += encode(std::nextafter(middle, -infinity), T{}).bits != bits;
    wrong += encode(std::nextafter(middle, infinity), T{}).bits != bits + 1;
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("every bf16 has the value its format gives it, and comes back") { check_all_values<bf16>(); }
TEST_CASE("every f16 has the value its format gives it, and comes back") { check_all_values<f16>(); }
TEST_CASE("bf16 rounds to nearest, ties to even") { check_all_ties<bf16>(0x7f7f); }
TEST_CASE("f16 rounds to nearest, ties to even, subnormals included") { check_all_ties<f16>(0x7bff); }

TEST_CASE("what is too large for a 16-bit float becomes infinity, what is too small zero") {
  CHECK(to_f16(65519.996f).bits == 0x7bff);
  CHECK(to_f16(65520.0f).bits == 0x7c00);
  CHECK(to_f16(-65520.0f).bits == 0xfc00);
  CHECK(to_f16(std::numeric_limits<float>::max()).bits == 0x7c00);
  CHECK(to_f16(0x1p-25f).bits == 0);
  CHECK(to_f16(0x1.000002p-25f).bits == 1);
  CHECK(to_f16(-std::numeric_limits<float>::denorm_min()).bits == 0x8000);
  CHECK(to_bf16(std::numeric_limits<float>::max()).bits == 0x7f80);
  CHECK(to_bf16(std::numeric_limits<float>::denorm_min()).bits == 0);
}

TEST_CASE("any float32 goes to one of its two neighbours, the nearer") {
  test::Random random(1);
  int wrong = 0;
  for (int i = 0; i < 200000; ++i) {
    const auto x = static_cast<float>(std::ldexp(random.uniform(-1, 1), static_cast<int>(random.index(-26, 15))));
    const f16 half = to_f16(x);
    const double error = std::abs(decode(half) - static_cast<double>(x));
    const double step = std::max(std::ldexp(1.0, -24), std::ldexp(1.0, std::ilogb(x) - 10));
    wrong += !(error <= step / 2);
    const double brain = std::abs(decode(to_bf16(x)) - static_cast<double>(x));
    wrong += !(brain <= std::ldexp(1.0, std::ilogb(x) - 8));
  }
  CHECK(wrong == 0);
}
