// What an adapter adds to a product: a matrix of low rank, kept as its two factors.
#pragma once

#include <algorithm>

#include "mixtral/ops/product.hpp"

namespace mixtral::ops {

// y += scale * b (a x), in float32: LoRA (arXiv:2106.09685). Dense factors of any type.
struct LowRank {
  MatrixView a;  // [rank, cols]
  MatrixView b;  // [rows, rank]
  float scale = 1;
};

// Throws Error(kInvalidArgument) unless the pair fits w.
inline void require_low_rank(const char* op, const LowRank& pair, const MatrixView& w) {
  require_weights(op, pair.a);
  require_weights(op, pair.b);
  require(pair.a.cols == w.cols && pair.b.rows == w.rows && pair.a.rows == pair.b.cols, op, ": a low-rank pair of [",
          pair.a.rows, ", ", pair.a.cols, "] and [", pair.b.rows, ", ", pair.b.cols, "] for weights [", w.rows, ", ",
          w.cols, "]");
}

// Adds rows [begin, begin + count) of scale * b ax, `run` of them at a time, to the place at(t, i) of row begin + i.
// ax [tokens, rank]; room: tokens * count floats
template <class At>
void add_low_rank(const KernelTable& table, const LowRank& pair, Index begin, Index count,
                  TensorView<const float, 2> ax, float* room, Index run, At&& at) noexcept {
  const TensorView<float, 2> more(room, Shape<2>{{ax.dim(0), count}});
  kDenseWeights.multiply(table, pair.b.rows_from(begin, count), {ax, {}, {}}, more, nullptr);
  for (Index t = 0; t < ax.dim(0); ++t) {
    for (Index i = 0; i < count; i += run) {
      table.axpy(pair.scale, more.row(t) + i, std::min(run, count - i), at(t, i));
    }
  }
}

}  // namespace mixtral::ops
