// Runs work on threads of its own: for programs without OpenMP, for machines with more work than CPUs, and for the
// thread sanitizer.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <system_error>
#include <vector>

#include "mixtral/core/fork_mark.hpp"
#include "mixtral/core/team.hpp"
#include "mixtral/core/worker_thread.hpp"

namespace mixtral {

// One team (core/team.hpp) of n_workers - 1 threads and the caller, worker 0. The threads spin for some tens of
// microseconds after a section and then sleep; nobody waits for one that has nothing to do. They are named mixtral-1,
// mixtral-2 ..., block all signals but those of their own faults, and have stacks of the system's default size. Calls
// from several threads must take turns. After fork() the child has none of the threads: there the caller works alone.
class ThreadExecutor final : public Executor {
 public:
  // Throws Error(kIo) if the system refuses a thread; then none is left.
  explicit ThreadExecutor(int n_workers) : team_(std::max(1, n_workers)) {
    workers_.reserve(static_cast<std::size_t>(team_.n_workers() - 1));  // the threads look at its elements
    const detail::SignalsBlocked blocked;
    for (int i = 1; i < team_.n_workers(); ++i) {
      workers_.push_back({&team_, i, {}});
      const int error = ::pthread_create(&workers_.back().thread, nullptr, serve, &workers_.back());
      if (error == 0) continue;
      workers_.pop_back();
      stop();
      fail(ErrorCode::kIo, "threads: ", team_.n_workers(),
           " are asked for, the calling one included; the system started ", i - 1,
           " and refused the next: ", std::generic_category().message(error));
    }
  }
  ~ThreadExecutor() override { stop(); }
  ThreadExecutor(const ThreadExecutor&) = delete;
  ThreadExecutor& operator=(const ThreadExecutor&) = delete;

  int n_workers() const noexcept override { return team_.n_workers(); }
  void parallel_for(Index n_tasks, Task task) override { team_.parallel_for(n_tasks, task); }

 private:
  struct Worker {
    detail::Team* team;
    int number;
    pthread_t thread;
  };

  static void* serve(void* worker) noexcept {
    const auto& self = *static_cast<const Worker*>(worker);
    detail::name_this_thread(self.number);
    self.team->serve(self.number);
    return nullptr;
  }

  void stop() noexcept {
    team_.close();
    // In the child of a fork() these threads do not exist, and their handles may meanwhile be those of others.
    if (process_.inherited()) return;
    for (const Worker& worker : workers_) ::pthread_join(worker.thread, nullptr);
  }

  detail::Team team_;
  detail::ForkMark process_;
  std::vector<Worker> workers_;
};

}  // namespace mixtral
