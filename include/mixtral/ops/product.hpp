// A product with weights, y = x w^T, cut into tasks by rows of w: what each type of weights needs for it.
#pragma once

#include <algorithm>

#include "mixtral/core/matrix_view.hpp"
#include "mixtral/ops/product_input.hpp"
#include "mixtral/ops/rows.hpp"

namespace mixtral::ops {

// How products with one type of weights are made.
struct WeightType {
  InputForm input;
  // A task has about so many bytes of weights, some tens of microseconds of memory time, so that workers that are held
  // up leave their share to the others: a multiple of `step` rows, what kernels take together, at least `least`, at
  // most `most`. Where rows lie together in panels, panels are counted.
  struct Task {
    Index bytes, step, least, most;
    bool two_a_worker = false;  // at least
  } task;
  bool needs_work;  // kTileWork of each worker
  // y [tokens, w.rows]
  void (*multiply)(const KernelTable& table, const MatrixView& w, const ProductInput& x, TensorView<float, 2> y,
                   float* work) noexcept;
};

namespace detail {

inline void multiply_dense(const KernelTable& table, const MatrixView& w, const ProductInput& x, TensorView<float, 2> y,
                           float*) noexcept {
  table.linear[w.dtype]({.w = w.data,
                         .w_row_bytes = w.row_bytes,
                         .x = x.floats.data(),
                         .x_stride = x.floats.row_stride(),
                         .y = y.data(),
                         .y_stride = y.row_stride(),
                         .rows = w.rows,
                         .cols = w.cols,
                         .tokens = y.dim(0)});
}

inline void multiply_rounded(const KernelTable& table, const MatrixView& w, const ProductInput& x,
                             TensorView<float, 2> y, float*) noexcept {
  table.linear_pairs({.w = w.data,
                      .w_row_bytes = w.row_bytes,
                      .x = x.pairs.x,
                      .token_step = x.pairs.token_step,
                      .pair_step = x.pairs.pair_step,
                      .y = y.data(),
                      .y_stride = y.row_stride(),
                      .rows = w.rows,
                      .cols = w.cols,
                      .tokens = y.dim(0)});
}

template <auto kKernels>
void multiply_packed(const KernelTable& table, const MatrixView& w, const ProductInput& x, TensorView<float, 2> y,
                     float* work) noexcept {
  (table.*kKernels)[w.dtype]({.w = w.data,
                              .rows = w.rows,
                              .cols = w.cols,
                              .q = x.bytes.q,
                              .meta = x.bytes.meta,
                              .slab_tokens = x.bytes.slab_tokens,
                              .tokens = y.dim(0),
                              .y = y.data(),
                              .y_stride = y.row_stride(),
                              .work = work});
}

}  // namespace detail

// The one list. A matrix unit takes as long for 2 MiB as others for 512 KiB, and its activations, which may be more
// than a cache holds, go to eight panels at a time.
inline constexpr WeightType kDenseWeights{.input = InputForm::kFloats,
                                          .task = {.bytes = 256 << 10, .step = 8, .least = 8, .most = 512},
                                          .needs_work = false,
                                          .multiply = detail::multiply_dense};
inline constexpr WeightType kRoundedWeights{.input = InputForm::kPairs,
                                            .task = {.bytes = 256 << 10, .step = 8, .least = 8, .most = 512},
                                            .needs_work = false,
                                            .multiply = detail::multiply_rounded};
inline constexpr WeightType kPackedWeights{.input = InputForm::kBytes,
                                           .task = {.bytes = 512 << 10, .step = 2, .least = 1, .most = 16},
                                           .needs_work = false,
                                           .multiply = detail::multiply_packed<&KernelTable::packed_linear>};
inline constexpr WeightType kPackedForTiles{
    .input = InputForm::kBytes,
    .task = {.bytes = 2048 << 10, .step = 2, .least = 2, .most = 16, .two_a_worker = true},
    .needs_work = true,
    .multiply = detail::multiply_packed<&KernelTable::packed_linear_tiles>};

// Of weights by so many tokens; exact: never rounded to bf16.
inline const WeightType& weight_type(const KernelTable& table, DType dtype, Index tokens, bool exact = false) noexcept {
  if (is_packed(dtype)) {
    const bool tiles = tokens >= table.matrix_unit_tokens && table.packed_linear_tiles.has(dtype);
    return tiles ? kPackedForTiles : kPackedWeights;
  }
  return dtype == DType::kBF16 && table.round_to_bf16 && !exact ? kRoundedWeights : kDenseWeights;
}

// One product, cut into tasks for some workers. Looks at table and weights. No result depends on the cut.
class Product {
 public:
  Product(const KernelTable& table, int workers, const MatrixView& w, Index tokens, bool exact = false) noexcept
      : table_(&table), type_(&weight_type(table, w.dtype, tokens, exact)), w_(w) {
    const WeightType::Task& task = type_->task;
    Index steps = std::min(task.bytes / std::max<Index>(w.row_bytes * w.row_step(), 1), task.most);
    if (task.two_a_worker) steps = std::min(steps, w.rows / w.row_step() / (2 * workers));
    task_rows_ = (steps < task.step ? task.least : steps / task.step * task.step) * w.row_step();
  }

  InputForm input() const noexcept { return type_->input; }
  bool needs_work() const noexcept { return type_->needs_work; }
  // Rows of a task; the last one may have fewer.
  Index task_rows() const noexcept { return task_rows_; }
  Index n_tasks() const noexcept { return (w_.rows + task_rows_ - 1) / task_rows_; }
  Index rows_of(Index task) const noexcept { return std::min(task_rows_, w_.rows - task * task_rows_); }

  // y [tokens, count] = x w[begin, begin + count)^T; begin is one of a task's, or where rows lie apart any.
  void run(Index begin, Index count, const ProductInput& x, TensorView<float, 2> y, float* work) const noexcept {
    type_->multiply(*table_, w_.rows_from(begin, count), x, y, work);
  }

 private:
  const KernelTable* table_;
  const WeightType* type_;
  MatrixView w_;
  Index task_rows_;
};

// Each worker's memory for products that need it; none where no product does.
class TileWork {
 public:
  TileWork(const OpContext& ctx, bool needed)
      : all_(needed ? ctx.scratch.take<float>(ctx.executor.n_workers() * simd::kTileWork) : nullptr) {}
  float* of(int worker) const noexcept { return all_ == nullptr ? nullptr : all_ + worker * simd::kTileWork; }

 private:
  float* all_;
};

// Throws Error(kInvalidArgument) on weights that no product takes.
inline void require_product_weights(const char* op, const MatrixView& w) {
  if (!w.is_packed()) require_weights(op, w);
}

}  // namespace mixtral::ops
