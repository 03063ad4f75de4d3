// Matrix products with weights.
#pragma once

#include <algorithm>

#include "mixtral/core/matrix_view.hpp"
#include "mixtral/ops/quantized.hpp"
#include "mixtral/ops/rounded.hpp"
#include "mixtral/ops/rows.hpp"

namespace mixtral::ops {

namespace detail {

// Whether a matrix unit multiplies w by so many tokens.
inline bool is_for_tiles(const KernelTable& table, const MatrixView& w, Index tokens) noexcept {
  return w.is_packed() && tokens >= table.matrix_unit_tokens;
}

// Weight rows of one task: about 256 KiB of dense weights, 512 KiB of packed ones: some tens of microseconds of memory
// time, so that workers that are held up leave their share to the others. A matrix unit takes as long for 2 MiB, and
// its activations, which may be more than a cache holds, go to eight panels at a time; but there are two tasks a
// worker.
inline Index rows_per_task(const KernelTable& table, int workers, const MatrixView& w, Index tokens) noexcept {
  const Index row_bytes = std::max<Index>(w.row_bytes, 1);
  if (w.is_packed()) {  // whole panels, an even number: kernels stream two together
    const bool tiles = is_for_tiles(table, w, tokens);
    Index panels = std::min<Index>(Index{tiles ? 2048 : 512} * 1024 / (row_bytes * w.row_step()), 16);
    if (tiles) panels = std::min(panels, w.rows / w.row_step() / (2 * workers));
    return (panels < 2 ? tiles ? 2 : 1 : panels / 2 * 2) * w.row_step();
  }
  // A multiple of 8 rows: what the kernels take at a time.
  return std::clamp<Index>(Index{256} * 1024 / row_bytes / 8 * 8, 8, 512);
}

inline Index count_tasks(const KernelTable& table, int workers, const MatrixView& w, Index tokens) noexcept {
  const Index rows = rows_per_task(table, workers, w, tokens);
  return (w.rows + rows - 1) / rows;
}

// Whether w is multiplied by activations rounded to bf16.
inline bool is_rounding(const KernelTable& table, const MatrixView& w) noexcept {
  return table.round_to_bf16 && w.dtype == DType::kBF16;
}

// The forms of its input that a set of matrices needs.
struct InputForms {
  bool floats = false, bytes = false, pairs = false;
  void add(const KernelTable& table, const MatrixView& w, bool exact = false) noexcept {
    (w.is_packed() ? bytes : is_rounding(table, w) && !exact ? pairs : floats) = true;
  }
};

// What is multiplied: float32 rows for dense weights, pairs for rounding ones, bytes for packed ones.
struct LinearInput {
  TensorView<const float, 2> x;
  QuantizedRows q;
  RoundedRows pairs;

  LinearInput rows(Index begin, Index count) const noexcept {
    return {x.rows(begin, count), q.rows(begin), pairs.rows(begin)};
  }
};

inline LinearInput make_input(const OpContext& ctx, TensorView<const float, 2> x, const InputForms& forms) {
  LinearInput out{x, {}, {}};
  if (forms.bytes) out.q = quantize(ctx, x);
  if (forms.pairs) out.pairs = round_rows(ctx, x.dim(0), x.dim(1), [&](Index t) { return x.row(t); });
  return out;
}

// Each worker's memory for products by a matrix unit; none where no product is one.
class TileWork {
 public:
  TileWork() = default;
  explicit TileWork(const OpContext& ctx) : all_(ctx.scratch.take<float>(ctx.executor.n_workers() * simd::kTileWork)) {}
  float* of(int worker) const noexcept { return all_ == nullptr ? nullptr : all_ + worker * simd::kTileWork; }

 private:
  float* all_ = nullptr;
};

// Task i of y = x w^T; exact: never rounded to bf16; work: this worker's.
inline void linear_task(const KernelTable& table, int workers, const MatrixView& w, const LinearInput& in,
                        TensorView<float, 2> y, Index i, float* work, bool exact = false) noexcept {
  const Index n = rows_per_task(table, workers, w, y.dim(0)), begin = i * n, rows = std::min(n, w.rows - begin);
  if (w.is_packed()) {
    const auto& kernels = is_for_tiles(table, w, y.dim(0)) ? table.packed_linear_tiles : table.packed_linear;
    kernels[packed_index(w.dtype)]({.w = w.row(begin),
                                    .rows = rows,
                                    .cols = w.cols,
                                    .q = in.q.q,
                                    .meta = in.q.meta,
                                    .slab_tokens = in.q.slab_tokens,
                                    .tokens = y.dim(0),
                                    .y = y.data() + begin,
                                    .y_stride = y.row_stride(),
                                    .work = work});
  } else if (is_rounding(table, w) && !exact) {
    table.linear_pairs({.w = w.row(begin),
                        .w_row_bytes = w.row_bytes,
                        .x = in.pairs.x,
                        .token_step = in.pairs.token_step,
                        .pair_step = in.pairs.pair_step,
                        .y = y.data() + begin,
                        .y_stride = y.row_stride(),
                        .rows = rows,
                        .cols = w.cols,
                        .tokens = y.dim(0)});
  } else {
    table.linear[static_cast<int>(w.dtype)]({.w = w.row(begin),
                                             .w_row_bytes = w.row_bytes,
                                             .x = in.x.data(),
                                             .x_stride = in.x.row_stride(),
                                             .y = y.data() + begin,
                                             .y_stride = y.row_stride(),
                                             .rows = rows,
                                             .cols = w.cols,
                                             .tokens = y.dim(0)});
  }
}

inline void require_linear_weights(const char* op, const MatrixView& w) {
  if (!w.is_packed()) require_weights(op, w);
}

inline void require_linear(const MatrixView& w, TensorView<const float, 2> x, TensorView<float, 2> y) {
  require(x.dim(1) == w.cols && y.dim(1) == w.rows && x.dim(0) == y.dim(0), "linear: w is [", w.rows, ", ", w.cols,
          "], x is ", shape_text(x.shape()), ", y is ", shape_text(y.shape()));
  require_linear_weights("linear", w);
  require(w.part == PanelPart::kAll, "linear: w is one half of an interleaved pair");
}

}  // namespace detail

// Several products of the same x, as one parallel section: y[i] = x w[i]^T.
//
// w [rows, cols] of any type of weights, x [n, cols], y [n, rows]; y overlaps neither. With dense weights each output
// is one float32 sum in an order that depends on cols alone (simd/linear_rows.hpp); for packed ones x is first made
// bytes, a scale for each 512 (simd/packed_rows.hpp); for BF16 ones it is rounded to bf16 if the table says so and the
// job does not ask for exact products (simd/linear_pairs.hpp). Throws Error(kInvalidArgument) on shapes that do not
// fit.
struct LinearJob {
  MatrixView w;
  TensorView<float, 2> y;
  bool exact = false;
};
inline void linear(const OpContext& ctx, std::span<const LinearJob> jobs, TensorView<const float, 2> x) {
  const int workers = ctx.executor.n_workers();
  const auto count = [&](const LinearJob& job) { return detail::count_tasks(ctx.table, workers, job.w, x.dim(0)); };
  Index n_tasks = 0;
  detail::InputForms forms;
  bool tiles = false;
  for (const LinearJob& job : jobs) {
    detail::require_linear(job.w, x, job.y);
    tiles = tiles || detail::is_for_tiles(ctx.table, job.w, x.dim(0));
    n_tasks += count(job);
    forms.add(ctx.table, job.w, job.exact);
  }
  const ScratchScope scope(ctx.scratch);
  const detail::LinearInput input = detail::make_input(ctx, x, forms);
  const detail::TileWork work = tiles ? detail::TileWork(ctx) : detail::TileWork();
  // Few dense rows by many tokens, as a router's, are shared out by tokens, too.
  constexpr Index kBlock = 96;  // twice what the kernels take at a time
  const bool by_tokens = n_tasks < workers && !forms.bytes && !forms.pairs;
  const Index n = x.dim(0), block = by_tokens ? kBlock : std::max<Index>(n, 1);
  ctx.executor.parallel_for(n_tasks * ((n + block - 1) / block), [&](Index i, int worker) {
    const Index begin = i / n_tasks * block, tokens = std::min(block, n - begin);
    i %= n_tasks;
    const LinearJob* job = jobs.data();
    while (i >= count(*job)) i -= count(*job++);
    detail::linear_task(ctx.table, workers, job->w, input.rows(begin, tokens), job->y.rows(begin, tokens), i,
                        work.of(worker), job->exact);
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
