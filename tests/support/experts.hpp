// Random experts that own their weights.
#pragma once

#include <deque>
#include <vector>

#include "mixtral/moe/expert_ffn.hpp"
#include "support/random.hpp"

namespace mixtral::test {

// Owns matrices of any type; gives views, and the same numbers in double.
class Store {
 public:
  MatrixView add(Random& random, DType dtype, Index rows, Index cols, double scale = 1) {
    switch (dtype) {
      case DType::kBF16: return keep(bf16_, random.matrix<bf16>(rows, cols, -scale, scale));
      case DType::kF16: return keep(f16_, random.matrix<f16>(rows, cols, -scale, scale));
      default: return keep(f32_, random.matrix<float>(rows, cols, -scale, scale));
    }
  }

 private:
  template <class T>
  static MatrixView keep(std::deque<Matrix<T>>& list, Matrix<T> matrix) {
    list.push_back(std::move(matrix));
    return list.back().view();
  }
  std::deque<Matrix<float>> f32_;
  std::deque<Matrix<bf16>> bf16_;
  std::deque<Matrix<f16>> f16_;
};

inline Matrix<double> in_double(const MatrixView& w) {
  const auto widen = [&](auto kind) {
    using T = decltype(kind);
    return in_double(TensorView<const T, 2>(reinterpret_cast<const T*>(w.data), Shape<2>{{w.rows, w.cols}},
                                            w.row_bytes / static_cast<Index>(sizeof(T))));
  };
  switch (w.dtype) {
    case DType::kBF16: return widen(bf16{});
    case DType::kF16: return widen(f16{});
    default: return widen(float{});
  }
}

// Experts of mixed types, as files made by several tools have them.
struct Experts {
  Experts(Random& random, Index n, Index dim, Index hidden_dim) {
    constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF16};
    const auto type = [&] { return kTypes[random.index(0, 2)]; };
    for (Index e = 0; e < n; ++e) {
      weights.push_back({store.add(random, type(), hidden_dim, dim, 0.5),
                         store.add(random, type(), dim, hidden_dim, 0.5),
                         store.add(random, type(), hidden_dim, dim, 0.5)});
    }
  }
  Store store;
  std::vector<ExpertWeights> weights;
};

inline Matrix<double> expert_oracle(const ExpertWeights& w, const Matrix<double>& x) {
  Matrix<double> y(x.shape());
  const auto w1 = in_double(w.w1), w2 = in_double(w.w2), w3 = in_double(w.w3);
  reference::expert_ffn(w1.cview(), w2.cview(), w3.cview(), x.cview(), y.view());
  return y;
}

}  // namespace mixtral::test
