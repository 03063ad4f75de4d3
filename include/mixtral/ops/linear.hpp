// Matrix products with weights.
#pragma once

#include <algorithm>
#include <new>
#include <optional>
#include <span>

#include "mixtral/core/tensor_slot.hpp"
#include "mixtral/ops/low_rank.hpp"
#include "mixtral/ops/product.hpp"

namespace mixtral::ops {

// One product of several that have the same x: y = x w^T.
struct LinearJob {
  MatrixView w;                         // [rows, cols]
  TensorView<float, 2> y;               // [n, rows]
  bool exact = false;                   // never by activations rounded to bf16
  std::optional<TensorSlot> slot = {};  // what w is: its tasks are told to the context's clock
  const LowRank* low_rank = nullptr;    // what is added to it
};

namespace detail {

inline void require_linear(const LinearJob& job, TensorView<const float, 2> x) {
  const MatrixView& w = job.w;
  require(x.dim(1) == w.cols && job.y.dim(1) == w.rows && x.dim(0) == job.y.dim(0), "linear: w is [", w.rows, ", ",
          w.cols, "], x is ", x.shape(), ", y is ", job.y.shape());
  require_product_weights("linear", w);
  require(w.part == PanelPart::kAll, "linear: w is one half of an interleaved pair");
  if (job.low_rank != nullptr) require_low_rank("linear", *job.low_rank, w);
}

}  // namespace detail

// Several products of the same x, as one parallel section.
//
// x [n, cols]; weights of any type; y overlaps nothing. With dense weights each output is one float32 sum in an order
// that depends on cols alone (simd/linear_rows.hpp); for packed ones x is first made bytes, a scale for each 512
// (simd/packed_rows.hpp); for BF16 ones it is rounded to bf16 if the table says so and the job does not ask for exact
// products (simd/linear_pairs.hpp). Low-rank pairs take another section before. Throws Error(kInvalidArgument) on
// shapes that do not fit.
inline void linear(const OpContext& ctx, std::span<const LinearJob> jobs, TensorView<const float, 2> x) {
  const ScratchScope scope(ctx.scratch);
  const int workers = ctx.executor.n_workers();
  const Index n = x.dim(0);
  const auto n_jobs = static_cast<Index>(jobs.size());
  auto* products = ctx.scratch.take<Product>(n_jobs);
  auto* narrow = ctx.scratch.take<LinearJob>(n_jobs);  // a x of those with a low-rank pair
  Index n_tasks = 0, n_narrow = 0, most_rows = 0;
  InputForms forms;
  bool needs_work = false;
  for (Index i = 0; i < n_jobs; ++i) {
    const LinearJob& job = jobs[static_cast<std::size_t>(i)];
    detail::require_linear(job, x);
    const Product& product = *new (&products[i]) Product(ctx.table, workers, job.w, n, job.exact);
    n_tasks += product.n_tasks();
    forms.add(product.input());
    needs_work = needs_work || product.needs_work();
    if (job.low_rank == nullptr) continue;
    const MatrixView& a = job.low_rank->a;
    new (&narrow[n_narrow++]) LinearJob{.w = a, .y = ctx.scratch.matrix<float>(n, a.rows), .exact = true};
    most_rows = std::max(most_rows, product.task_rows());
  }
  if (n_narrow > 0) linear(ctx, {narrow, static_cast<std::size_t>(n_narrow)}, x);
  const auto room = ctx.scratch.matrix<float>(n_narrow > 0 ? workers : 0, n * most_rows);
  const ProductInput input = make_input(ctx, x, forms);
  const TileWork work(ctx, needs_work);
  // Few dense rows by many tokens, as a router's, are shared out by tokens, too.
  constexpr Index kBlock = 96;  // twice what the kernels take at a time
  const bool by_tokens = n_tasks < workers && forms == InputForms(InputForm::kFloats);
  const Index block = by_tokens ? kBlock : std::max<Index>(n, 1);
  ctx.executor.parallel_for(n_tasks * ((n + block - 1) / block), [&](Index i, int worker) {
    const Index first = i / n_tasks * block, tokens = std::min(block, n - first);
    i %= n_tasks;
    const LinearJob* job = jobs.data();
    const Product* product = products;
    const LinearJob* ax = narrow;
    while (i >= product->n_tasks()) {
      i -= product->n_tasks();
      if (job->low_rank != nullptr) ++ax;
      ++job, ++product;
    }
    const Index begin = i * product->task_rows(), rows = product->rows_of(i);
    const TensorView<float, 2> y = job->y.rows(first, tokens).columns(begin, rows);
    const auto run = [&] {
      product->run(begin, rows, input.rows(first, tokens), y, work.of(worker));
      if (job->low_rank == nullptr) return;
      add_low_rank(ctx.table, *job->low_rank, begin, rows, ax->y.rows(first, tokens), room.row(worker), rows,
                   [&](Index t, Index) { return y.row(t); });
    };
    if (!job->slot) return run();
    timed(ctx.clock, {.slot = *job->slot, .rows = rows, .tokens = tokens, .worker = worker}, run);
  });
}

// One product: y = x w^T.
inline void linear(const OpContext& ctx, const MatrixView& w, TensorView<const float, 2> x, TensorView<float, 2> y) {
  const LinearJob job{w, y};
  linear(ctx, std::span(&job, 1), x);
}

// The same for known types; x and y float, or bf16 and f16 (computed in float32), or double.
template <class W, class T>
void linear(const OpContext& ctx, TensorView<const W, 2> w, TensorView<const T, 2> x, TensorView<T, 2> y) {
  require(x.dim(1) == w.dim(1) && y.dim(1) == w.dim(0) && x.dim(0) == y.dim(0), "linear: w is ", w.shape(), ", x is ",
          x.shape(), ", y is ", y.shape());
  if constexpr (!kHasKernels<T> || !kHasKernels<W>) {
    reference::linear(w, x, y);
  } else if constexpr (std::is_same_v<T, float>) {
    linear(ctx, MatrixView(w), x, y);
  } else {
    const ScratchScope scope(ctx.scratch);
    const auto wide_x = ctx.scratch.matrix<float>(x.dim(0), x.dim(1));
    const auto wide_y = ctx.scratch.matrix<float>(y.dim(0), y.dim(1));
    for (Index t = 0; t < x.dim(0); ++t) as_float(ctx.table, x.row(t), x.dim(1), wide_x.row(t));
    linear(ctx, MatrixView(w), wide_x, wide_y);
    for (Index t = 0; t < y.dim(0); ++t) from_float(wide_y.row(t), y.dim(1), y.row(t));
  }
}

}  // namespace mixtral::ops
