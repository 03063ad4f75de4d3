// How the library runs work in parallel: one small interface, so that a host can bring its own pool.
#pragma once

#include <atomic>
#include <exception>
#include <type_traits>

#include "mixtral/core/float_environment.hpp"
#include "mixtral/core/function_ref.hpp"
#include "mixtral/core/types.hpp"

namespace mixtral {

// A callable (Index task, int worker), looked at as FunctionRef does. Whichever thread calls it, and whatever executor
// that thread is of, it computes in the library's floating-point environment: its own scope of it, or one that an
// executor has open on this thread for many tasks.
class Task {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, Task> && std::is_invocable_v<F&, Index, int>) Task(F&& callable)
  noexcept : call_(callable) {}  // NOLINT: implicit by purpose

  void operator()(Index task, int worker) const {
    const FloatScope floats;
    (*this)(floats, task, worker);
  }
  void operator()(const FloatScope& /* of this thread */, Index task, int worker) const { call_(task, worker); }

 private:
  FunctionRef<void(Index, int)> call_;
};

// Results of the library never depend on the number of workers, on which worker ran a task, or on the host's
// floating-point environment.
class Executor {
 public:
  virtual ~Executor() = default;

  // Upper bound of the workers that a call uses; `worker` is in [0, n_workers()).
  virtual int n_workers() const noexcept = 0;

  // Runs task(i, worker) once for every i in [0, n_tasks), in any order, and returns when all have ended. A task leaves
  // its thread's floating-point environment as it finds it: the section's next one may compute in it.
  // Tasks never wait for each other. The first exception is rethrown here after the join; the tasks that
  // had not begun by then are skipped. One call at a time per executor.
  virtual void parallel_for(Index n_tasks, Task task) = 0;

  // Calls body(team) on this thread. `team` computes as this executor does, for the time of the call; where workers
  // are the executor's own, they stand by between its sections, so that a pass of many short ones wakes nobody. Here:
  // body(*this).
  virtual void run_team(FunctionRef<void(Executor& team)> body) { body(*this); }
};

namespace detail {

// The queue behind every parallel executor: workers draw the next task until none is left.
class TaskQueue {
 public:
  TaskQueue(Index n_tasks, Task task) noexcept : n_tasks_(n_tasks), task_(task) {}

  void work(int worker) noexcept {
    const FloatScope floats;
    for (Index i = next_.fetch_add(1); i < n_tasks_; i = next_.fetch_add(1)) {
      try {
        task_(floats, i, worker);
      } catch (...) {
        if (!failed_.exchange(true)) error_ = std::current_exception();
        next_.store(n_tasks_);
      }
    }
  }

  // After the join.
  void rethrow() {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  Index n_tasks_;
  Task task_;
  std::atomic<Index> next_{0};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
};

}  // namespace detail

class SerialExecutor final : public Executor {
 public:
  int n_workers() const noexcept override { return 1; }
  void parallel_for(Index n_tasks, Task task) override {
    const FloatScope floats;
    for (Index i = 0; i < n_tasks; ++i) task(floats, i, 0);
  }
};

}  // namespace mixtral
