// Runs work on OpenMP's threads. Without OpenMP at compile time it runs everything on the caller.
#pragma once

#include <algorithm>
#include <atomic>

#include "mixtral/core/team.hpp"

namespace mixtral {

// Uses the clause num_threads only: the host's OpenMP settings are neither read nor changed. Called from
// inside a host's parallel region it runs on the calling thread (OpenMP's default for nested regions).
// OpenMP's workers keep spinning for a moment after a region; that is the run-time's habit, not ours.
class OpenMpExecutor final : public Executor {
 public:
  explicit OpenMpExecutor(int n_workers) noexcept : n_workers_(std::max(1, n_workers)) {}

  int n_workers() const noexcept override { return n_workers_; }

  void parallel_for(Index n_tasks, Task task) override {
    detail::TaskQueue queue(n_tasks, task);
    const int team = static_cast<int>(std::min<Index>(n_workers_, n_tasks));
    if (team <= 1) {
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
    if (n_workers_ > 1) {
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
  int n_workers_;
};

}  // namespace mixtral
