// Every tolerance that the tests of the building blocks use, with its reason. Golden data brings its own.
// One unit in the last place (ulp) of float32 is 1.2e-7 of the value, half of it the rounding of one step.
#pragma once

#include "support/compare.hpp"

namespace mixtral::test {

// A handful of roundings and nothing that cancels: RMSNorm, SwiGLU, softmax (exp is good to 2e-7).
inline constexpr Budget kFewRoundings{"a few roundings", 1e-37, 1e-6};

// Sums of up to some hundred products of numbers below 1: 16 chains, each rounding errors of partial sums of
// some units, so about sqrt(n / 16) * 6e-8 * the sums. The sum may cancel, so the budget is absolute.
inline constexpr Budget kDotProduct{"a float32 dot product", 4e-6, 2e-6};

// Rotations: two products and a sum of numbers below 1 with angles rounded to float32.
inline constexpr Budget kRotation{"a float32 rotation", 3e-7, 0};

// Results stored in 16 bits: half an ulp of bf16 is 2^-9, of f16 2^-11, after float32 arithmetic.
inline constexpr Budget kStoredBf16{"stored as bf16", 1e-5, 0x1p-8};
inline constexpr Budget kStoredF16{"stored as f16", 1e-5, 0x1p-10};

// Whole layers of width some tens with weights below 1: several dot products deep.
inline constexpr Budget kLayer{"a layer in float32", 2e-5, 1e-5};

template <class T>
constexpr Budget stored_as(const Budget& float32) {
  if constexpr (std::is_same_v<T, bf16>) return kStoredBf16;
  if constexpr (std::is_same_v<T, f16>) return kStoredF16;
  if constexpr (std::is_same_v<T, double>) return {"the same in double", 1e-12, 1e-12};
  return float32;
}

}  // namespace mixtral::test
