// One expert: y = w2 (silu(w1 x) * (w3 x)).
#pragma once

#include <atomic>

#include "mixtral/ops/activation.hpp"
#include "mixtral/ops/linear.hpp"

namespace mixtral {

// Dense matrices of any types, or packed ones: w1 and w3 then are the halves of one interleaved pair.
struct ExpertWeights {
  MatrixView w1;  // [hidden_dim, dim]: gate projection
  MatrixView w2;  // [dim, hidden_dim]: down projection
  MatrixView w3;  // [hidden_dim, dim]: up projection
};

namespace moe {

namespace detail {

// One expert with its rows on their way through it.
struct ExpertBatch {
  const ExpertWeights* weights;
  ops::detail::LinearInput x;     // [n, dim]
  TensorView<float, 2> hidden;    // [n, hidden_dim]
  ops::QuantizedRows hidden_q;    // if w2 is packed
  ops::RoundedRows hidden_pairs;  // if w2 is rounding
  Index* slab_rows = nullptr;     // if w2 is packed: hidden columns that are there, of each slab; zeros at first
  TensorView<float, 2> y;         // [n, dim]
};

// Columns [begin, begin + count) of hidden are there; they become what w2 is multiplied by, so that the second half can
// begin at once. Whoever completes a slab makes it bytes; what is computed does not depend on who that is.
inline void finish_hidden(const KernelTable& table, const ExpertBatch& b, Index begin, Index count) noexcept {
  if (b.hidden_pairs.x != nullptr) {
    for (Index t = 0; t < b.hidden.dim(0); ++t) {
      ops::round_columns(table, b.hidden.row(t) + begin, begin, count, t, b.hidden_pairs);
    }
  }
  if (b.slab_rows == nullptr) return;
  const Index hidden_dim = b.hidden.dim(1);
  for (Index s = begin / kSlabCols; s * kSlabCols < begin + count; ++s) {
    const Index first = std::max(begin, s * kSlabCols), last = std::min(begin + count, (s + 1) * kSlabCols);
    const Index width = std::min(kSlabCols, hidden_dim - s * kSlabCols);
    const Index there = std::atomic_ref(b.slab_rows[s]).fetch_add(last - first, std::memory_order_acq_rel);
    if (there + last - first < width) continue;
    for (Index t = 0; t < b.hidden.dim(0); ++t) {
      ops::quantize_slab(table, b.hidden.row(t), hidden_dim, s, t, b.hidden_q);
    }
  }
}

// Task i of the first half: some of the hidden rows, gate and up products and SwiGLU in one go.
// both: room for 2 * n * rows_per_task floats of this worker. The products wait there, in the cache, and `hidden`,
// whose rows are far apart, is written once in whole runs.
inline void gate_up_task(const KernelTable& table, int workers, const ExpertBatch& b, float* both, float* work,
                         Index i) noexcept {
  const ExpertWeights& expert = *b.weights;
  const Index n = b.hidden.dim(0), rows = ops::detail::rows_per_task(table, workers, expert.w1, n), begin = i * rows;
  const Index count = std::min(rows, expert.w1.rows - begin);
  if (expert.w1.is_packed()) {  // w1 and w3 are one matrix, 16 rows of each in turns
    MatrixView pair = expert.w1.rows_from(begin, count);
    pair.part = PanelPart::kAll;
    pair.rows = pair_panels_of(count) * kPanelRows;
    pair.row_bytes = expert.w1.row_bytes / 2;
    const TensorView<float, 2> products(both, Shape<2>{{n, pair.rows}});
    for (Index part = 0; part < ops::detail::count_tasks(table, workers, pair, n); ++part) {
      ops::detail::linear_task(table, workers, pair, b.x, products, part, work);
    }
    for (Index t = 0; t < n; ++t) {
      for (Index r = 0; r < count; r += kHalfRows) {
        const float* gate = products.row(t) + 2 * r;
        table.swiglu(gate, gate + kHalfRows, std::min(kHalfRows, count - r), b.hidden.row(t) + begin + r);
      }
    }
  } else {
    const TensorView<float, 2> gates(both, Shape<2>{{n, count}});
    const TensorView<float, 2> ups(both + n * count, Shape<2>{{n, count}});
    ops::detail::linear_task(table, workers, expert.w1.rows_from(begin, count), b.x, gates, 0, work);
    // Both matrices have hidden_dim rows, but may differ in type and so in their task sizes.
    const MatrixView w3 = expert.w3.rows_from(begin, count);
    for (Index part = 0; part < ops::detail::count_tasks(table, workers, w3, n); ++part) {
      ops::detail::linear_task(table, workers, w3, b.x, ups, part, work);
    }
    for (Index t = 0; t < n; ++t) table.swiglu(gates.row(t), ups.row(t), count, b.hidden.row(t) + begin);
  }
  finish_hidden(table, b, begin, count);
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
  for (const MatrixView* w : {&expert.w1, &expert.w2, &expert.w3}) ops::detail::require_linear_weights("expert", *w);
  const bool pair = expert.w1.part == PanelPart::kFirst && expert.w3.part == PanelPart::kSecond &&
                    expert.w1.data == expert.w3.data && expert.w1.dtype == expert.w3.dtype;
  require(pair || !(expert.w1.is_packed() || expert.w3.is_packed()),
          "expert: packed w1 and w3 must be the two halves of one interleaved pair");
  require(expert.w2.part == PanelPart::kAll, "expert: w2 is one half of an interleaved pair");
}

// Gives a batch of n rows room for what is between its halves.
inline void take_hidden(const OpContext& ctx, ExpertBatch& b, Index n) {
  const Index hidden_dim = b.weights->w1.rows;
  b.hidden = ctx.scratch.matrix<float>(n, hidden_dim);
  if (ops::detail::is_rounding(ctx.table, b.weights->w2)) b.hidden_pairs = ops::take_rounded(ctx, n, hidden_dim);
  if (!b.weights->w2.is_packed()) return;
  b.hidden_q = ops::take_quantized(ctx.scratch, n, hidden_dim);
  const Index slabs = b.weights->w2.layout().slabs();
  b.slab_rows = ctx.scratch.take<Index>(slabs);
  std::fill_n(b.slab_rows, slabs, Index{0});
}

// Runs all batches together in two parallel sections: what one expert leaves idle another uses. Shapes fit.
inline void run_batches(const OpContext& ctx, std::span<const ExpertBatch> batches) {
  const ScratchScope scope(ctx.scratch);
  const int workers = ctx.executor.n_workers();
  Index room = 0;
  bool tiles = false;
  for (const ExpertBatch& b : batches) {
    const Index n = b.hidden.dim(0);
    room = std::max(room, 2 * n * ops::detail::rows_per_task(ctx.table, workers, b.weights->w1, n));
    for (const MatrixView* w : {&b.weights->w1, &b.weights->w2, &b.weights->w3})
      tiles = tiles || ops::detail::is_for_tiles(ctx.table, *w, n);
  }
  const auto both = ctx.scratch.matrix<float>(workers, room);
  const ops::detail::TileWork work = tiles ? ops::detail::TileWork(ctx) : ops::detail::TileWork();
  const auto for_all = [&](auto matrix_of, auto run) {
    const auto count = [&](const ExpertBatch& b) {
      return ops::detail::count_tasks(ctx.table, workers, matrix_of(b), b.hidden.dim(0));
    };
    Index n_tasks = 0;
    for (const ExpertBatch& b : batches) n_tasks += count(b);
    ctx.executor.parallel_for(n_tasks, [&](Index i, int worker) {
      const ExpertBatch* b = batches.data();
      while (i >= count(*b)) i -= count(*b++);
      run(*b, i, worker);
    });
  };
  for_all([](const ExpertBatch& b) -> const MatrixView& { return b.weights->w1; },
          [&](const ExpertBatch& b, Index i, int worker) {
            gate_up_task(ctx.table, workers, b, both.row(worker), work.of(worker), i);
          });
  for_all([](const ExpertBatch& b) -> const MatrixView& { return b.weights->w2; },
          [&](const ExpertBatch& b, Index i, int worker) {
            ops::detail::linear_task(ctx.table, workers, b.weights->w2, {b.hidden, b.hidden_q, b.hidden_pairs}, b.y, i,
                                     work.of(worker));
          });
}

}  // namespace detail

// Runs one expert on gathered rows.  x, y [n, dim]; y may not overlap x.
// Throws Error(kInvalidArgument) on shapes that do not fit.
inline void expert_ffn(const OpContext& ctx, const ExpertWeights& expert, TensorView<const float, 2> x,
                       TensorView<float, 2> y) {
  ops::detail::require_same_shape("expert_ffn", "x", x, "y", y);
  detail::require_expert(expert, x.dim(1));
  const ScratchScope scope(ctx.scratch);
  ops::detail::InputForms forms;
  for (const MatrixView* w : {&expert.w1, &expert.w3}) forms.add(ctx.table, *w);
  detail::ExpertBatch batch{};
  batch.weights = &expert;
  batch.x = ops::detail::make_input(ctx, x, forms);
  batch.y = y;
  detail::take_hidden(ctx, batch, x.dim(0));
  detail::run_batches(ctx, {&batch, 1});
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
