// Root mean square normalisation (Zhang and Sennrich 2019).
#pragma once

#include <span>

#include "mixtral/core/matrix_view.hpp"
#include "mixtral/ops/rows.hpp"

namespace mixtral::ops {

// y = weight * x / sqrt(mean(x^2) + eps), row by row; y may be x.  x, y [n, dim], weight [1, dim] of any type.
// Throws Error(kInvalidArgument) on shapes that do not fit.
inline void rms_norm(const OpContext& ctx, TensorView<const float, 2> x, const MatrixView& weight, float eps,
                     TensorView<float, 2> y) {
  require_same_shape("rms_norm", "x", x, "y", y);
  require(weight.rows == 1 && weight.cols == x.dim(1), "rms_norm: weight is [", weight.rows, ", ", weight.cols,
          "], expected [1, ", x.dim(1), "]");
  require_weights("rms_norm", weight);
  const ScratchScope scope(ctx.scratch);
  float* wide = ctx.scratch.take<float>(weight.cols);
  ctx.table.widen[weight.dtype](weight.data, weight.cols, wide);
  ctx.executor.parallel_for(x.dim(0),
                            [&](Index t, int) { ctx.table.rms_norm(x.row(t), wide, eps, x.dim(1), y.row(t)); });
}

// The same for known types; x and y float, bf16, f16 (computed in float32) or double.  weight [dim]
template <class W, class T>
void rms_norm(const OpContext& ctx, TensorView<const T, 2> x, std::span<const W> weight, float eps,
              TensorView<T, 2> y) {
  const auto dim = static_cast<Index>(weight.size());
  require(x.dim(1) == dim, "rms_norm: x is ", x.shape(), ", weight has ", dim, " elements");
  require_same_shape("rms_norm", "x", x, "y", y);
  if constexpr (!kHasKernels<T> || !kHasKernels<W>) {
    reference::rms_norm(x, weight, eps, y);
  } else {
    const ScratchScope scope(ctx.scratch);
    const auto row = ctx.scratch.matrix<float>(2, dim);
    const float* wide = as_float(ctx.table, weight.data(), dim, row.row(1));
    for (Index t = 0; t < x.dim(0); ++t) {
      const float* in = as_float(ctx.table, x.row(t), dim, row.row(0));
      if constexpr (std::is_same_v<T, float>) {
        ctx.table.rms_norm(in, wide, eps, dim, y.row(t));
      } else {
        ctx.table.rms_norm(in, wide, eps, dim, row.row(0));
        from_float(row.row(0), dim, y.row(t));
      }
    }
  }
}

}  // namespace mixtral::ops
