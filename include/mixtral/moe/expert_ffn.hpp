// One expert: y = w2 (silu(w1 x) * (w3 x)).
#pragma once

#include "mixtral/ops/activation.hpp"
#include "mixtral/ops/linear.hpp"

namespace mixtral {

struct ExpertWeights {
  MatrixView w1;  // [hidden_dim, dim]: gate projection
  MatrixView w2;  // [dim, hidden_dim]: down projection
  MatrixView w3;  // [hidden_dim, dim]: up projection
};

namespace moe {

namespace detail {

// Task i of the first half: some of the hidden rows, gate and up products and SwiGLU in one go.
// x [n, dim], hidden [n, hidden_dim], both: room for 2 * n * rows_per_task floats of this worker. The products
// wait there, in the cache, and `hidden`, whose rows are far apart, is written once in whole runs.
inline void gate_up_task(const KernelTable& table, const ExpertWeights& expert, TensorView<const float, 2> x,
                         TensorView<float, 2> hidden, float* both, Index i) noexcept {
  const Index n = x.dim(0), rows = ops::detail::rows_per_task(expert.w1), begin = i * rows;
  const Index count = std::min(rows, expert.w1.rows - begin);
  const TensorView<float, 2> gates(both, Shape<2>{{n, count}});
  const TensorView<float, 2> ups(both + n * count, Shape<2>{{n, count}});
  ops::detail::linear_task(table, expert.w1.rows_from(begin, count), x, gates, 0);
  // Both matrices have hidden_dim rows, but may differ in type and so in their task sizes.
  const MatrixView w3 = expert.w3.rows_from(begin, count);
  for (Index part = 0; part < ops::detail::count_tasks(w3); ++part) ops::detail::linear_task(table, w3, x, ups, part);
  for (Index t = 0; t < n; ++t) {
    table.swiglu(gates.row(t), ups.row(t), count, hidden.row(t) + begin);
  }
}

inline void require_expert_shapes(const ExpertWeights& expert, Index dim) {
  const auto text = [](const MatrixView& w) { return shape_text(Shape<2>{{w.rows, w.cols}}); };
  require(expert.w1.cols == dim && expert.w3.cols == dim && expert.w3.rows == expert.w1.rows && expert.w2.rows == dim &&
              expert.w2.cols == expert.w1.rows,
          "expert: w1 is ", text(expert.w1), ", w2 is ", text(expert.w2), ", w3 is ", text(expert.w3), " for dim ",
          dim);
}

inline void require_expert(const ExpertWeights& expert, Index dim) {
  require_expert_shapes(expert, dim);
  for (const MatrixView* w : {&expert.w1, &expert.w2, &expert.w3}) ops::detail::require_weights("expert", *w);
}

}  // namespace detail

// Runs one expert on gathered rows.  x, y [n, dim]; y may not overlap x.
// Throws Error(kInvalidArgument) on shapes that do not fit.
inline void expert_ffn(const OpContext& ctx, const ExpertWeights& expert, TensorView<const float, 2> x,
                       TensorView<float, 2> y) {
  ops::detail::require_same_shape("expert_ffn", "x", x, "y", y);
  detail::require_expert(expert, x.dim(1));
  const ScratchScope scope(ctx.scratch);
  const auto hidden = ctx.scratch.matrix<float>(x.dim(0), expert.w1.rows);
  const auto both =
      ctx.scratch.matrix<float>(ctx.executor.n_workers(), 2 * x.dim(0) * ops::detail::rows_per_task(expert.w1));
  ctx.executor.parallel_for(ops::detail::count_tasks(expert.w1), [&](Index i, int worker) {
    detail::gate_up_task(ctx.table, expert, x, hidden, both.row(worker), i);
  });
  ops::linear(ctx, expert.w2, hidden, y);
}

// The same for known types; x and y float, or bf16 and f16 (computed in float32), or double.
template <class W, class T>
void expert_ffn(const OpContext& ctx, TensorView<const W, 2> w1, TensorView<const W, 2> w2, TensorView<const W, 2> w3,
                TensorView<const T, 2> x, TensorView<T, 2> y) {
  ops::detail::require_same_shape("expert_ffn", "x", x, "y", y);
  detail::require_expert_shapes({w1, w2, w3}, x.dim(1));
  if constexpr (!ops::detail::kHasKernels<W> || !ops::detail::kHasKernels<T>) {
    reference::expert_ffn(w1, w2, w3, x, y);
  } else if constexpr (std::is_same_v<T, float>) {
    expert_ffn(ctx, ExpertWeights{w1, w2, w3}, x, y);
  } else {
    const ScratchScope scope(ctx.scratch);
    const auto wide_x = ctx.scratch.matrix<float>(x.dim(0), x.dim(1)),
               wide_y = ctx.scratch.matrix<float>(y.dim(0), y.dim(1));
    for (Index t = 0; t < x.dim(0); ++t) ops::detail::as_float(ctx.table, x.row(t), x.dim(1), wide_x.row(t));
    expert_ffn(ctx, ExpertWeights{w1, w2, w3}, wide_x, wide_y);
    for (Index t = 0; t < y.dim(0); ++t) ops::detail::from_float(wide_y.row(t), y.dim(1), y.row(t));
  }
}

}  // namespace moe
}  // namespace mixtral
