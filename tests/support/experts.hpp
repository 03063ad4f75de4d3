// Random experts that own their weights.
#pragma once

#include <deque>
#include <vector>

#include "mixtral/moe/expert_ffn.hpp"
#include "mixtral/ops/pack.hpp"
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

// Bytes of packed matrices.
class PackedStore {
 public:
  // The same experts packed; w1 and w3 as a pair.
  moe::ExpertWeights add(const OpContext& op, const moe::ExpertWeights& dense, DType dtype) {
    const auto room = [&](Index bytes) {
      bytes_.emplace_back(Shape<1>{{bytes}});
      return reinterpret_cast<std::byte*>(bytes_.back().data());
    };
    const auto pair = ops::pack_pair(op, dense.w1, dense.w3, dtype, {},
                                     room(ops::packed_pair_bytes(dtype, dense.w1.rows, dense.w1.cols)));
    const MatrixView w2 =
        ops::pack(op, dense.w2, dtype, {}, room(ops::packed_bytes(dtype, dense.w2.rows, dense.w2.cols)));
    return {pair.first, w2, pair.second};
  }
  MatrixView add(const OpContext& op, const MatrixView& dense, DType dtype) {
    bytes_.emplace_back(Shape<1>{{ops::packed_bytes(dtype, dense.rows, dense.cols)}});
    return ops::pack(op, dense, dtype, {}, reinterpret_cast<std::byte*>(bytes_.back().data()));
  }

 private:
  std::deque<Tensor<std::uint8_t, 1>> bytes_;
};

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
  std::vector<moe::ExpertWeights> weights;
};

inline Matrix<double> expert_oracle(const moe::ExpertWeights& w, const Matrix<double>& x) {
  Matrix<double> y(x.shape());
  const auto w1 = in_double(w.w1), w2 = in_double(w.w2), w3 = in_double(w.w3);
  reference::expert_ffn(w1.cview(), w2.cview(), w3.cview(), x.cview(), y.view());
  return y;
}

}  // namespace mixtral::test
