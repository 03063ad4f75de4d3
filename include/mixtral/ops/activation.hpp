// Softmax and SwiGLU, row by row.
#pragma once

#include "mixtral/ops/rows.hpp"

namespace mixtral::ops {

// Each row becomes exp(x - max) / sum, in place; -infinity becomes 0.  x [n, cols], cols > 0.
// T float, bf16, f16 (computed in float32) or double.
template <class T>
void softmax(const OpContext& ctx, TensorView<T, 2> x) {
  require(x.dim(1) > 0 || x.dim(0) == 0, "softmax: x is ", x.shape());
  if constexpr (!kHasKernels<T>) {
    reference::softmax(x);
  } else if constexpr (std::is_same_v<T, float>) {
    for (Index t = 0; t < x.dim(0); ++t) ctx.table.softmax(x.row(t), x.dim(1));
  } else {
    const ScratchScope scope(ctx.scratch);
    float* row = ctx.scratch.take<float>(x.dim(1));
    for (Index t = 0; t < x.dim(0); ++t) {
      as_float(ctx.table, x.row(t), x.dim(1), row);
      ctx.table.softmax(row, x.dim(1));
      from_float(row, x.dim(1), x.row(t));
    }
  }
}

// h = silu(gate) * up (Shazeer 2020); h may be gate or up.  all [n, hidden_dim], types as in softmax.
template <class T>
void swiglu(const OpContext& ctx, TensorView<const T, 2> gate, TensorView<const T, 2> up, TensorView<T, 2> h) {
  require_same_shape("swiglu", "gate", gate, "up", up);
  require_same_shape("swiglu", "gate", gate, "h", h);
  const Index n = h.dim(1);
  if constexpr (!kHasKernels<T>) {
    reference::swiglu(gate, up, h);
  } else if constexpr (std::is_same_v<T, float>) {
    for (Index t = 0; t < h.dim(0); ++t) ctx.table.swiglu(gate.row(t), up.row(t), n, h.row(t));
  } else {
    const ScratchScope scope(ctx.scratch);
    const auto rows = ctx.scratch.matrix<float>(2, n);
    for (Index t = 0; t < h.dim(0); ++t) {
      as_float(ctx.table, gate.row(t), n, rows.row(0));
      as_float(ctx.table, up.row(t), n, rows.row(1));
      ctx.table.swiglu(rows.row(0), rows.row(1), n, rows.row(0));
      from_float(rows.row(0), n, h.row(t));
    }
  }
}

}  // namespace mixtral::ops
