// Runs work on standard threads of its own: for programs without OpenMP, for machines with more work than CPUs, and
// for the thread sanitizer.
#pragma once

#include <algorithm>
#include <thread>
#include <vector>

#include "mixtral/core/team.hpp"

namespace mixtral {

// One team (core/team.hpp) of n_workers - 1 threads and the caller, worker 0. The threads spin for some tens of
// microseconds after a section and then sleep; nobody waits for one that has nothing to do. Calls from several threads
// must take turns.
class ThreadExecutor final : public Executor {
 public:
  explicit ThreadExecutor(int n_workers) : team_(std::max(1, n_workers)) {
    threads_.reserve(static_cast<std::size_t>(team_.n_workers() - 1));
    try {
      for (int i = 1; i < team_.n_workers(); ++i) threads_.emplace_back([this, i] { team_.serve(i); });
    } catch (...) {  // the system refused a thread: end those that run, then report
      stop();
      throw;
    }
  }
  ~ThreadExecutor() override { stop(); }
  ThreadExecutor(const ThreadExecutor&) = delete;
  ThreadExecutor& operator=(const ThreadExecutor&) = delete;

  int n_workers() const noexcept override { return team_.n_workers(); }
  void parallel_for(Index n_tasks, Task task) override { team_.parallel_for(n_tasks, task); }

 private:
  void stop() noexcept {
    team_.close();
    for (std::thread& thread : threads_) thread.join();
  }

  detail::Team team_;
  std::vector<std::thread> threads_;
};

}  // namespace mixtral
