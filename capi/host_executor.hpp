// The host's own threads behind mixtral_run_fn. Whatever the host does with the jobs (none, too many, on any thread),
// every task runs exactly once: the jobs only draw from our queue.
#pragma once

#include <algorithm>
#include <atomic>
#include <thread>

#include "mixtral.h"
#include "mixtral/core/executor.hpp"

namespace mixtral::capi {

class HostExecutor final : public Executor {
 public:
  HostExecutor(int n_workers, mixtral_run_fn run, void* user) noexcept
      : n_workers_(std::max(1, n_workers)), run_(run), user_(user) {}

  int n_workers() const noexcept override { return n_workers_; }

  void parallel_for(Index n_tasks, Task task) override {
    const auto n_jobs = static_cast<int>(std::min<Index>(n_workers_, n_tasks));
    Section section(n_jobs, n_tasks, task);
    if (n_jobs > 1) {
      try {
        run_(
            user_, n_jobs, [](void* state) { static_cast<Section*>(state)->work(); }, &section);
      } catch (...) {  // a C++ host's
        section.finish();
        throw;
      }
    }
    section.finish();
    section.queue.rethrow();
  }

 private:
  struct Section {
    Section(int jobs, Index n_tasks, Task task) noexcept : queue(n_tasks, task), n_jobs(jobs) {}

    // One job: takes a worker's number and works until no task is left.
    void work() noexcept {
      running.fetch_add(1);
      const int worker = begun.fetch_add(1);
      if (worker < n_jobs) queue.work(worker);
      running.fetch_sub(1);
    }
    // Does what no job did, and waits for jobs that a host left running.
    void finish() noexcept {
      work();
      while (running.load() > 0) std::this_thread::yield();
    }

    detail::TaskQueue queue;
    int n_jobs;
    std::atomic<int> begun{0}, running{0};
  };

  int n_workers_;
  mixtral_run_fn run_;
  void* user_;
};

}  // namespace mixtral::capi
