// Matrix products with weights.
#pragma once

#include <algorithm>

#include "mixtral/core/matrix_view.hpp"
#include "mixtral/ops/rows.hpp"

namespace mixtral::ops {

namespace detail {

// Weight rows of one task: about 256 KiB of weights, some tens of microseconds of memory time, so that
// workers that are held up leave their share to the others.
inline Index rows_per_task(const MatrixView& w) noexcept {
  // A multiple of 8 rows: what the kernels take at a time.
  constexpr Index kTaskBytes = Index{256} * 1024;
  return std::clamp<Index>(kTaskBytes / std::max<Index>(w.row_bytes, 1) / 8 * 8, 8, 512);
}

inline Index count_tasks(const MatrixView& w) noexcept {
  const Index rows = rows_per_task(w);
  return (w.rows + rows - 1) / rows;
}

// Task i of y = x w^T.
inline void linear_task(const KernelTable& table, const MatrixView& w, TensorView<const float, 2> x,
                        TensorView<float, 2> y, Index i) noexcept {
  const Index rows = rows_per_task(w), begin = i * rows;
  table.linear[static_cast<int>(w.dtype)]({.w = w.row(begin),
                                           .w_row_bytes = w.row_bytes,
                                           .x = x.data(),
                                           .x_stride = x.row_stride(),
                                           .y = y.data() + begin,
                                           .y_stride = y.row_stride(),
                                           .rows = std::min(rows, w.rows - begin),
                                           .cols = w.cols,
                                           .tokens = x.dim(0)});
}

inline void require_linear(const MatrixView& w, TensorView<const float, 2> x, TensorView<float, 2> y) {
  require(x.dim(1) == w.cols && y.dim(1) == w.rows && x.dim(0) == y.dim(0), "linear: w is [", w.rows, ", ", w.cols,
          "], x is ", shape_text(x.shape()), ", y is ", shape_text(y.shape()));
  require_weights("linear", w);
}

}  // namespace detail

// y = x w^T.  w [rows, cols] of any weight type, x [n, cols], y [n, rows]; y overlaps neither.
// Each output is one float32 sum in an order that depends on cols alone (see simd/linear_rows.hpp).
// Throws Error(kInvalidArgument) on shapes that do not fit.
inline void linear(const OpContext& ctx, const MatrixView& w, TensorView<const float, 2> x, TensorView<float, 2> y) {
  detail::require_linear(w, x, y);
  ctx.executor.parallel_for(detail::count_tasks(w), [&](Index i, int) { detail::linear_task(ctx.table, w, x, y, i); });
}

// Several products of the same x, as one parallel section: y[i] = x w[i]^T.
struct LinearJob {
  MatrixView w;
  TensorView<float, 2> y;
};
inline void linear(const OpContext& ctx, std::span<const LinearJob> jobs, TensorView<const float, 2> x) {
  Index n_tasks = 0;
  for (const LinearJob& job : jobs) {
    detail::require_linear(job.w, x, job.y);
    n_tasks += detail::count_tasks(job.w);
  }
  ctx.executor.parallel_for(n_tasks, [&](Index i, int) {
    const LinearJob* job = jobs.data();
    while (i >= detail::count_tasks(job->w)) i -= detail::count_tasks((job++)->w);
    detail::linear_task(ctx.table, job->w, x, job->y, i);
  });
}

// The same for known types; x and y float, or bf16 and f16 (computed in float32), or double.
template <class W, class T>
void linear(const OpContext& ctx, TensorView<const W, 2> w, TensorView<const T, 2> x, TensorView<T, 2> y) {
  require(x.dim(1) == w.dim(1) && y.dim(1) == w.dim(0) && x.dim(0) == y.dim(0), "linear: w is ", shape_text(w.shape()),
          ", x is ", shape_text(x.shape()), ", y is ", shape_text(y.shape()));
  if constexpr (!detail::kHasKernels<T> || !detail::kHasKernels<W>) {
    reference::linear(w, x, y);
  } else if constexpr (std::is_same_v<T, float>) {
    linear(ctx, MatrixView(w), x, y);
  } else {
    const ScratchScope scope(ctx.scratch);
    const auto wide_x = ctx.scratch.matrix<float>(x.dim(0), x.dim(1));
    const auto wide_y = ctx.scratch.matrix<float>(y.dim(0), y.dim(1));
    for (Index t = 0; t < x.dim(0); ++t) detail::as_float(ctx.table, x.row(t), x.dim(1), wide_x.row(t));
    linear(ctx, MatrixView(w), wide_x, wide_y);
    for (Index t = 0; t < y.dim(0); ++t) detail::from_float(wide_y.row(t), y.dim(1), y.row(t));
  }
}

}  // namespace mixtral::ops
