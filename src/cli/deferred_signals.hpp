// Signals that end the program, held back while a file is written.
#pragma once

#include <csignal>

#include "mixtral/core/executor.hpp"

namespace mixtral::cli {

// While it lives, SIGINT, SIGTERM and SIGHUP wait: what is being written is finished, or given up and removed. Its end
// delivers the signal that came, as if nothing had held it back. A signal that was ignored (nohup) stays so. One at a
// time.
class DeferredSignals {
 public:
  DeferredSignals();
  ~DeferredSignals();
  DeferredSignals(const DeferredSignals&) = delete;
  DeferredSignals& operator=(const DeferredSignals&) = delete;

  // Throws Error(kCancelled) if a signal waits.
  static void check();

 private:
  static constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};
  struct sigaction before_[3];
};

// The workers of another executor, which begin no task once a signal waits.
class SignalledExecutor final : public Executor {
 public:
  explicit SignalledExecutor(Executor& workers) : workers_(workers) {}

  int n_workers() const noexcept override { return workers_.n_workers(); }
  // Also throws Error(kCancelled).
  void parallel_for(Index n_tasks, Task task) override;

 private:
  Executor& workers_;
};

}  // namespace mixtral::cli
