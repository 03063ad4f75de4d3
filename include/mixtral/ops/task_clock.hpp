// Who is told how long the tasks of products take.
#pragma once

#include <chrono>
#include <cstdint>

#include "mixtral/core/tensor_slot.hpp"

namespace mixtral {

// One task of a product: some rows of a matrix by all tokens that it has. An expert's gate and up products and SwiGLU
// are one task, under w1. A low-rank pair's time is its matrix's, but for what its narrow factor takes before.
struct TaskTime {
  TensorSlot slot;
  ExpertVersion version = kCurrentVersion;  // of an expert
  Index rows = 0, tokens = 0;
  int worker = 0;
  std::int64_t begin_ns = 0, ns = 0;  // since the steady clock's beginning; how long
};

class TaskClock {
 public:
  virtual ~TaskClock() = default;
  // On the worker's thread, while others call it, too.
  virtual void on_task(const TaskTime& task) noexcept = 0;
};

namespace ops {

// Runs a task and tells the clock, if there is one.
template <class F>
void timed(TaskClock* clock, TaskTime task, F&& run) {
  if (clock == nullptr) return run();
  const auto now = [] {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  };
  task.begin_ns = now();
  run();
  task.ns = now() - task.begin_ns;
  clock->on_task(task);
}

}  // namespace ops

}  // namespace mixtral
