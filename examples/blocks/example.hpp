// What the examples share: made-up numbers, and a line that says how far a result is from the plain loops of
// ops/reference.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>

#include "mixtral/core/tensor.hpp"

namespace example {

using namespace mixtral;

// [rows, cols] of numbers in [-1, 1), the same on every machine.
inline Matrix<float> made_up(Index rows, Index cols, std::uint32_t seed) {
  Matrix<float> out(Shape<2>{{rows, cols}});
  for (float& x : out.span()) {
    seed = seed * 1664525u + 1013904223u;
    x = static_cast<float>(seed >> 8) * 0x1p-23f - 1.0f;
  }
  return out;
}

// Prints the largest difference; the value is the program's exit code. The vectorised sums add in another
// order than the plain loops: a few float32 roundings apart for numbers near 1.
inline int agrees(const char* what, TensorView<const float, 2> got, TensorView<const float, 2> want) {
  constexpr double kTolerance = 1e-5;
  double worst = 0;
  for (Index r = 0; r < want.dim(0); ++r) {
    for (Index c = 0; c < want.dim(1); ++c) {
      const double difference = std::abs(static_cast<double>(got.row(r)[c]) - static_cast<double>(want.row(r)[c]));
      worst = difference <= worst ? worst : difference;  // keeps a NaN
    }
  }
  std::printf("%s: first %.6f, largest difference to the reference %.1e\n", what, static_cast<double>(got.row(0)[0]),
              worst);
  return worst <= kTolerance ? 0 : 1;
}

}  // namespace example
