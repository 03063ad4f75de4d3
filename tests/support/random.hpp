// Random numbers and tensors that are the same with every standard library.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "mixtral/core/tensor.hpp"
#include "mixtral/ops/reference.hpp"

namespace mixtral::test {

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}

  // Uniform in [low, high), with 24 random bits.
  double uniform(double low, double high) {
    return low + (high - low) * static_cast<double>(engine_() >> 40) * 0x1p-24;
  }
  // Uniform in [low, high].
  Index index(Index low, Index high) {
    return low + static_cast<Index>(engine_() % static_cast<std::uint64_t>(high - low + 1));
  }
  bool chance(double probability) { return uniform(0, 1) < probability; }

  template <class T>
  std::vector<T> values(Index n, double low = -1, double high = 1) {
    std::vector<T> out(static_cast<std::size_t>(n));
    for (T& x : out) reference::assign(x, static_cast<reference::Sum<T>>(uniform(low, high)));
    return out;
  }
  template <class T>
  Matrix<T> matrix(Index rows, Index cols, double low = -1, double high = 1) {
    Matrix<T> out(Shape<2>{{rows, cols}});
    for (T& x : out.span()) reference::assign(x, static_cast<reference::Sum<T>>(uniform(low, high)));
    return out;
  }

 private:
  std::mt19937_64 engine_;
};

// The same numbers in double: the input of the oracle.
template <class T>
Matrix<double> in_double(TensorView<T, 2> x) {
  Matrix<double> out(x.shape());
  for (Index t = 0; t < x.dim(0); ++t) {
    for (Index i = 0; i < x.dim(1); ++i) out.row(t)[i] = static_cast<double>(reference::value(x.row(t)[i]));
  }
  return out;
}
template <class T>
Matrix<double> in_double(const Matrix<T>& x) {
  return in_double(x.view());
}

}  // namespace mixtral::test
