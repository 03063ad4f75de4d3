// One expert: y = w2 (silu(w1 x) * (w3 x)).
#pragma once

#include <atomic>
#include <memory>
#include <new>
#include <span>

#include "mixtral/moe/expert_key.hpp"
#include "mixtral/ops/activation.hpp"
#include "mixtral/ops/linear.hpp"
#include "mixtral/ops/low_rank.hpp"
#include "mixtral/ops/product.hpp"

namespace mixtral::moe {

// What an adapter adds to an expert's products; null: nothing.
struct ExpertLowRank {
  const ops::LowRank* w1 = nullptr;
  const ops::LowRank* w2 = nullptr;
  const ops::LowRank* w3 = nullptr;
};

// Dense matrices of any types, or packed ones: w1 and w3 then are the halves of one interleaved pair.
struct ExpertWeights {
  MatrixView w1;                           // [hidden_dim, dim]: gate projection
  MatrixView w2;                           // [dim, hidden_dim]: down projection
  MatrixView w3;                           // [hidden_dim, dim]: up projection
  ExpertLowRank low_rank = {};             // looked at
  std::shared_ptr<const void> owner = {};  // of the matrices' bytes; null: somebody else keeps them
};

namespace detail {

// The interleaved pair that packed w1 is one half of: 16 rows of w1 and 16 of w3 in turns.
inline MatrixView pair_of(const MatrixView& w1) noexcept {
  MatrixView pair = w1;
  pair.part = PanelPart::kAll;
  pair.rows = pair_panels_of(w1.rows) * kPanelRows;
  pair.row_bytes = w1.row_bytes / 2;
  return pair;
}

// One expert with its rows on their way through it.
struct ExpertBatch {
  ExpertBatch(const KernelTable& table, int workers, const ExpertWeights& w, Index n) noexcept
      : weights(&w),
        gate(table, workers, w.w1.is_packed() ? pair_of(w.w1) : w.w1, n),
        up(table, workers, w.w3, n),
        down(table, workers, w.w2, n) {}

  // Hidden columns of task i of the first half.
  Index gate_step() const noexcept { return gate.task_rows() / (weights->w1.is_packed() ? 2 : 1); }
  Index gate_columns(Index i) const noexcept { return std::min(gate_step(), weights->w1.rows - i * gate_step()); }

  const ExpertWeights* weights;
  Index layer = -1;
  ExpertKey key = {};
  ops::Product gate;  // and up, if they are packed
  ops::Product up, down;
  ops::ProductInput x;             // [n, dim]
  TensorView<float, 2> hidden;     // [n, hidden_dim]
  ops::ProductInput hidden_in;     // the same in w2's form
  Index* blocks = nullptr;         // hidden columns that are there, of each kInputBlock; null: w2 takes float32
  TensorView<float, 2> y;          // [n, dim]
  TensorView<float, 2> narrow[3];  // of low-rank pairs: a x of w1 and w3, a hidden of w2
};

// Columns [begin, begin + count) of hidden are there. Whoever completes a block gives it the form that w2 wants, so
// that the second half can begin at once; what is computed does not depend on who that is.
inline void finish_hidden(const KernelTable& table, const ExpertBatch& b, Index begin, Index count) noexcept {
  if (b.blocks == nullptr) return;
  const Index hidden_dim = b.hidden.dim(1);
  for (Index block = begin / ops::kInputBlock; block * ops::kInputBlock < begin + count; ++block) {
    const Index block_begin = block * ops::kInputBlock,
                block_end = std::min(block_begin + ops::kInputBlock, hidden_dim);
    const Index more = std::min(begin + count, block_end) - std::max(begin, block_begin);
    const Index there = std::atomic_ref(b.blocks[block]).fetch_add(more, std::memory_order_acq_rel);
    if (there + more < block_end - block_begin) continue;
    for (Index t = 0; t < b.hidden.dim(0); ++t) ops::convert_block(table, b.hidden_in, block, t);
  }
}

// Task i of the first half: some of the hidden rows, gate and up products and SwiGLU in one go.
// room: task_room() floats of this worker. The products wait there, in the cache, and `hidden`, whose rows are far
// apart, is written once in whole runs.
inline void gate_up_task(const KernelTable& table, const ExpertBatch& b, float* room, float* work, Index i) noexcept {
  const bool packed = b.weights->w1.is_packed();
  const Index n = b.hidden.dim(0), begin = i * b.gate_step(), count = b.gate_columns(i);
  const Index width = packed ? pair_panels_of(count) * kPanelRows : 2 * count;
  const TensorView<float, 2> both(room, Shape<2>{{n, width}});
  // Where gate and up of hidden column begin + r stand; `run` of each lie together.
  const Index run = packed ? kHalfRows : count;
  const auto gate_at = [&](Index t, Index r) { return both.row(t) + (packed ? 2 * r : r); };
  const auto up_at = [&](Index t, Index r) { return gate_at(t, r) + run; };
  if (packed) {
    b.gate.run(2 * begin, width, b.x, both, work);
  } else {
    b.gate.run(begin, count, b.x, both.columns(0, count), work);
    b.up.run(begin, count, b.x, both.columns(count, count), work);
  }
  const ExpertLowRank& more = b.weights->low_rank;
  float* const more_room = room + n * width;
  if (more.w1 != nullptr) ops::add_low_rank(table, *more.w1, begin, count, b.narrow[0], more_room, run, gate_at);
  if (more.w3 != nullptr) ops::add_low_rank(table, *more.w3, begin, count, b.narrow[1], more_room, run, up_at);
  for (Index t = 0; t < n; ++t) {
    for (Index r = 0; r < count; r += run) {
      table.swiglu(gate_at(t, r), up_at(t, r), std::min(run, count - r), b.hidden.row(t) + begin + r);
    }
  }
  finish_hidden(table, b, begin, count);
}

inline void require_expert_shapes(const ExpertWeights& expert, Index dim) {
  const auto shape = [](const MatrixView& w) { return Shape<2>{{w.rows, w.cols}}; };
  require(expert.w1.cols == dim && expert.w3.cols == dim && expert.w3.rows == expert.w1.rows && expert.w2.rows == dim &&
              expert.w2.cols == expert.w1.rows,
          "expert: w1 is ", shape(expert.w1), ", w2 is ", shape(expert.w2), ", w3 is ", shape(expert.w3), " for dim ",
          dim);
}

inline void require_expert(const ExpertWeights& expert, Index dim) {
  require_expert_shapes(expert, dim);
  for (const MatrixView* w : {&expert.w1, &expert.w2, &expert.w3}) ops::require_product_weights("expert", *w);
  const bool pair = expert.w1.part == PanelPart::kFirst && expert.w3.part == PanelPart::kSecond &&
                    expert.w1.data == expert.w3.data && expert.w1.dtype == expert.w3.dtype;
  require(pair || !(expert.w1.is_packed() || expert.w3.is_packed()),
          "expert: packed w1 and w3 must be the two halves of one interleaved pair");
  require(expert.w2.part == PanelPart::kAll, "expert: w2 is one half of an interleaved pair");
  const ExpertLowRank& more = expert.low_rank;
  if (more.w1 != nullptr) ops::require_low_rank("expert: w1", *more.w1, expert.w1);
  if (more.w2 != nullptr) ops::require_low_rank("expert: w2", *more.w2, expert.w2);
  if (more.w3 != nullptr) ops::require_low_rank("expert: w3", *more.w3, expert.w3);
}

// Which of an expert's low-rank pairs: the order of ExpertBatch::narrow.
inline const ops::LowRank* low_rank_of(const ExpertLowRank& pairs, int i) noexcept {
  return i == 0 ? pairs.w1 : i == 1 ? pairs.w3 : pairs.w2;
}

// The forms of its input that an expert needs.
inline void add_forms(const ExpertBatch& b, ops::InputForms& forms) noexcept {
  forms.add(b.gate.input());
  if (!b.weights->w1.is_packed()) forms.add(b.up.input());
  if (b.weights->low_rank.w1 != nullptr || b.weights->low_rank.w3 != nullptr) forms.add(ops::InputForm::kFloats);
}

// Room for what is between the halves of a batch, and for the narrow rows of its low-rank pairs.
inline void take_hidden(const OpContext& ctx, ExpertBatch& b) {
  const ExpertWeights& w = *b.weights;
  const Index n = b.y.dim(0), hidden_dim = w.w1.rows;
  b.hidden = ctx.scratch.matrix<float>(n, hidden_dim);
  b.hidden_in = ops::take_input(ctx, b.hidden, ops::InputForms(b.down.input()));
  if (b.down.input() != ops::InputForm::kFloats) {
    const Index blocks = (hidden_dim + ops::kInputBlock - 1) / ops::kInputBlock;
    b.blocks = ctx.scratch.take<Index>(blocks);
    std::fill_n(b.blocks, blocks, Index{0});
  }
  for (int i = 0; i < 3; ++i) {
    const ops::LowRank* pair = low_rank_of(w.low_rank, i);
    if (pair != nullptr) b.narrow[i] = ctx.scratch.matrix<float>(n, pair->a.rows);
  }
}

// Each worker's room for what a task of these batches computes on its way.
inline Index task_room(std::span<const ExpertBatch> batches) noexcept {
  Index room = 0;
  for (const ExpertBatch& b : batches) {
    const Index n = b.y.dim(0), columns = b.gate_step();
    const ExpertLowRank& more = b.weights->low_rank;
    room = std::max(room, n * columns * (more.w1 != nullptr || more.w3 != nullptr ? 3 : 2));
    if (more.w2 != nullptr) room = std::max(room, n * b.down.task_rows());
  }
  return room;
}

// narrow[i] = a x of the batches' pairs [first, last), in one section, if there are any.
template <class InputOf>
void narrow(const OpContext& ctx, std::span<const ExpertBatch> batches, int first, int last, InputOf&& input_of) {
  struct Job {
    ops::Product product;
    TensorView<const float, 2> x;
    TensorView<float, 2> y;
  };
  const ScratchScope scope(ctx.scratch);
  auto* jobs = ctx.scratch.take<Job>(2 * static_cast<Index>(batches.size()));
  Index n_jobs = 0, n_tasks = 0;
  for (const ExpertBatch& b : batches) {
    for (int i = first; i < last; ++i) {
      const ops::LowRank* pair = low_rank_of(b.weights->low_rank, i);
      if (pair == nullptr) continue;
      const ops::Product product(ctx.table, ctx.executor.n_workers(), pair->a, b.y.dim(0), /*exact=*/true);
      n_tasks += (new (&jobs[n_jobs++]) Job{product, input_of(b), b.narrow[i]})->product.n_tasks();
    }
  }
  if (n_tasks == 0) return;
  ctx.executor.parallel_for(n_tasks, [&](Index i, int) {
    const Job* job = jobs;
    while (i >= job->product.n_tasks()) i -= job++->product.n_tasks();
    const Index begin = i * job->product.task_rows(), rows = job->product.rows_of(i);
    job->product.run(begin, rows, {job->x, {}, {}}, job->y.columns(begin, rows), nullptr);
  });
}

// Task i of the second half.
inline void down_task(const KernelTable& table, const ExpertBatch& b, float* room, float* work, Index i) noexcept {
  const Index begin = i * b.down.task_rows(), rows = b.down.rows_of(i);
  const TensorView<float, 2> y = b.y.columns(begin, rows);
  b.down.run(begin, rows, b.hidden_in, y, work);
  if (const ops::LowRank* pair = b.weights->low_rank.w2) {
    ops::add_low_rank(table, *pair, begin, rows, b.narrow[2], room, rows, [&](Index t, Index) { return y.row(t); });
  }
}

// Runs all batches together in two parallel sections, and two small ones where there are low-rank pairs: what one
// expert leaves idle another uses. Shapes fit.
inline void run_batches(const OpContext& ctx, std::span<const ExpertBatch> batches) {
  const ScratchScope scope(ctx.scratch);
  const auto room = ctx.scratch.matrix<float>(ctx.executor.n_workers(), task_room(batches));
  const bool needs_work = std::any_of(batches.begin(), batches.end(), [](const ExpertBatch& b) {
    return b.gate.needs_work() || b.up.needs_work() || b.down.needs_work();
  });
  const ops::TileWork work(ctx, needs_work);
  const auto for_all = [&](TensorKind kind, ops::Product ExpertBatch::*product, auto rows_of, auto task) {
    Index n_tasks = 0;
    for (const ExpertBatch& b : batches) n_tasks += (b.*product).n_tasks();
    ctx.executor.parallel_for(n_tasks, [&](Index i, int worker) {
      const ExpertBatch* b = batches.data();
      while (i >= (b->*product).n_tasks()) i -= (b++->*product).n_tasks();
      const TaskTime time{.slot = {kind, b->layer, b->key.expert},
                          .version = b->key.version,
                          .rows = rows_of(*b, i),
                          .tokens = b->y.dim(0),
                          .worker = worker};
      ops::timed(ctx.clock, time, [&] { task(ctx.table, *b, room.row(worker), work.of(worker), i); });
    });
  };
  narrow(ctx, batches, 0, 2, [](const ExpertBatch& b) { return b.x.floats; });
  for_all(
      TensorKind::kW1, &ExpertBatch::gate, [](const ExpertBatch& b, Index i) { return b.gate_columns(i); },
      gate_up_task);
  narrow(ctx, batches, 2, 3, [](const ExpertBatch& b) { return b.hidden; });
  for_all(
      TensorKind::kW2, &ExpertBatch::down, [](const ExpertBatch& b, Index i) { return b.down.rows_of(i); }, down_task);
}

}  // namespace detail

// Runs one expert on gathered rows.  x, y [n, dim]; y may not overlap x.
// Throws Error(kInvalidArgument) on shapes that do not fit.
inline void expert_ffn(const OpContext& ctx, const ExpertWeights& expert, TensorView<const float, 2> x,
                       TensorView<float, 2> y) {
  ops::require_same_shape("expert_ffn", "x", x, "y", y);
  detail::require_expert(expert, x.dim(1));
  const ScratchScope scope(ctx.scratch);
  detail::ExpertBatch batch(ctx.table, ctx.executor.n_workers(), expert, x.dim(0));
  ops::InputForms forms;
  detail::add_forms(batch, forms);
  batch.x = ops::make_input(ctx, x, forms);
  batch.y = y;
  detail::take_hidden(ctx, batch);
  detail::run_batches(ctx, {&batch, 1});
}

// The same for known types; x and y float, or bf16 and f16 (computed in float32), or double.
template <class W, class T>
void expert_ffn(const OpContext& ctx, TensorView<const W, 2> w1, TensorView<const W, 2> w2, TensorView<const W, 2> w3,
                TensorView<const T, 2> x, TensorView<T, 2> y) {
  ops::require_same_shape("expert_ffn", "x", x, "y", y);
  detail::require_expert_shapes({w1, w2, w3}, x.dim(1));
  if constexpr (!ops::kHasKernels<W> || !ops::kHasKernels<T>) {
    reference::expert_ffn(w1, w2, w3, x, y);
  } else if constexpr (std::is_same_v<T, float>) {
    expert_ffn(ctx, ExpertWeights{w1, w2, w3}, x, y);
  } else {
    const ScratchScope scope(ctx.scratch);
    const auto wide_x = ctx.scratch.matrix<float>(x.dim(0), x.dim(1)),
               wide_y = ctx.scratch.matrix<float>(y.dim(0), y.dim(1));
    for (Index t = 0; t < x.dim(0); ++t) ops::as_float(ctx.table, x.row(t), x.dim(1), wide_x.row(t));
    expert_ffn(ctx, ExpertWeights{w1, w2, w3}, wide_x, wide_y);
    for (Index t = 0; t < y.dim(0); ++t) ops::from_float(wide_y.row(t), y.dim(1), y.row(t));
  }
}

}  // namespace mixtral::moe
