// Comparisons: within a named budget, or bit for bit.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <span>

#include "mixtral/core/tensor.hpp"
#include "mixtral/ops/reference.hpp"

namespace mixtral::test {

// |got - want| <= absolute + relative * |want|. The budgets in use stand in support/budgets.hpp.
struct Budget {
  const char* name;
  double absolute;
  double relative;
};

// The first element outside the budget, or -1. A NaN equals a NaN and nothing else.
template <class A, class B>
Index first_outside(std::span<A> got, std::span<B> want, const Budget& budget) {
  for (std::size_t i = 0; i < want.size(); ++i) {
    const auto g = static_cast<double>(reference::value(got[i])), w = static_cast<double>(reference::value(want[i]));
    if (std::isnan(g) && std::isnan(w)) continue;
    if (g == w) continue;  // infinities
    if (!(std::abs(g - w) <= budget.absolute + budget.relative * std::abs(w))) return static_cast<Index>(i);
  }
  return -1;
}

template <class A, class B>
void check_close(std::span<A> got, std::span<B> want, const Budget& budget) {
  REQUIRE(got.size() == want.size());
  const Index bad = first_outside(got, want, budget);
  if (bad < 0) return;
  const auto i = static_cast<std::size_t>(bad);
  FAIL_CHECK("element ", bad, " of ", want.size(), " is ", reference::value(got[i]), ", expected ",
             reference::value(want[i]), "; outside the budget '", budget.name, "'");
}
template <class A, class B>
void check_close(TensorView<A, 2> got, TensorView<B, 2> want, const Budget& budget) {
  REQUIRE(got.shape() == want.shape());
  for (Index t = 0; t < want.dim(0); ++t) {
    CAPTURE(t);
    check_close(got.row_span(t), want.row_span(t), budget);
  }
}
template <class A, class B>
void check_close(const Matrix<A>& got, const Matrix<B>& want, const Budget& budget) {
  check_close(got.view(), want.view(), budget);
}

// Root mean square of the differences, relative to that of `want`.
template <class T>
double relative_error(const Matrix<float>& got, const Matrix<T>& want) {
  double error = 0, size = 0;
  for (Index i = 0; i < got.size(); ++i) {
    error += std::pow(got.data()[i] - want.data()[i], 2);
    size += std::pow(want.data()[i], 2);
  }
  return std::sqrt(error / size);
}

// Bit for bit; any NaN equals any other, since processors choose among the operands' payloads.
inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y) || (std::isnan(x) && std::isnan(y));
  });
}
inline bool same_bits(const Matrix<float>& a, const Matrix<float>& b) {
  return a.shape() == b.shape() && same_bits(a.span(), b.span());
}

}  // namespace mixtral::test
