// What every op is given: kernels, threads and scratch memory. No op uses anything global.
#pragma once

#include <memory>

#include "mixtral/core/executor.hpp"
#include "mixtral/core/scratch.hpp"
#include "mixtral/ops/kernel_table.hpp"
#include "mixtral/ops/task_clock.hpp"

namespace mixtral {

// One call of an op at a time per context. What it refers to must outlive it.
struct OpContext {
  const KernelTable& table;
  Executor& executor;
  Scratch& scratch;
  TaskClock* clock = nullptr;  // told of each task of a product; null: nobody asks for the time
};

namespace ops {

// f(begin, end, worker) for blocks of `rows` of n rows on all workers; a single block, as a decode step's, on the spot,
// which costs no section.
template <class F>
void for_blocks(const OpContext& ctx, Index n, Index rows, F&& f) {
  if (n <= rows) return n > 0 ? f(Index{0}, n, 0) : void();
  ctx.executor.parallel_for((n + rows - 1) / rows, [&](Index i, int worker) {
    f(i * rows, n - i * rows < rows ? n : (i + 1) * rows, worker);
  });
}

}  // namespace ops

}  // namespace mixtral
