// Runs work on OpenMP's threads. Without OpenMP at compile time it runs everything on the caller.
#pragma once

#include <algorithm>
#include <atomic>
#include <utility>

#include "mixtral/core/fork_mark.hpp"
#include "mixtral/core/team.hpp"

namespace mixtral {

// Uses the clause num_threads only: the host's OpenMP settings are neither read nor changed. Called from
// inside a host's parallel region it runs on the calling thread (OpenMP's default for nested regions).
// The threads are the run-time's: their names, stacks and signals are its business, it ends the process if the system
// refuses it one, and they keep spinning for a moment after a region. After fork() a child that inherits a used
// executor would wait for threads that it does not have, so there the caller works alone.
class OpenMpExecutor final : public Executor {
 public:
  explicit OpenMpExecutor(int n_workers) noexcept : n_workers_(std::max(1, n_workers)) {}

  int n_workers() const noexcept override { return n_workers_; }

  void parallel_for(Index n_tasks, Task task) override {
    detail::TaskQueue queue(n_tasks, task);
    const int team = static_cast<int>(std::min<Index>(n_workers_, n_tasks));
    if (team <= 1 || is_inherited()) {
      queue.work(0);
    } else {
      std::atomic<int> workers{0};
#if defined(_OPENMP)
#pragma omp parallel num_threads(team)
#endif
      queue.work(workers.fetch_add(1));
    }
    queue.rethrow();
  }

  void run_team(FunctionRef<void(Executor& team)> body) override {
#if defined(_OPENMP)
    if (n_workers_ > 1 && !is_inherited()) {
      detail::Team team(n_workers_);
      std::atomic<int> workers{1};
      std::exception_ptr error;
#pragma omp parallel num_threads(n_workers_)
      {
        bool leads = false;
#pragma omp master
        leads = true;
        if (leads) {
          try {
            body(team);
          } catch (...) {
            error = std::current_exception();
          }
          team.close();
        } else {
          team.serve(workers.fetch_add(1));
        }
      }
      if (error) std::rethrow_exception(error);
      return;
    }
#endif
    body(*this);
  }

 private:
  // Whether another process has used it, of which this one is a fork.
  bool is_inherited() noexcept {
    if (!std::exchange(used_, true)) user_.adopt();
    return user_.inherited();
  }

  int n_workers_;
  bool used_ = false;
  detail::ForkMark user_;  // the process that used it first
};

}  // namespace mixtral
