#include "cli/deferred_signals.hpp"

#include <atomic>
#include <iterator>

#include "mixtral/core/error.hpp"

namespace mixtral::cli {
namespace {

std::atomic<int> waiting = 0;  // the signal; 0: none
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may set it");

void hold(int signal) { waiting = signal; }

}  // namespace

DeferredSignals::DeferredSignals() {
  waiting = 0;
  struct sigaction action = {};
  action.sa_handler = hold;
  action.sa_flags = SA_RESTART;
  for (std::size_t i = 0; i < std::size(kSignals); ++i) {
    ::sigaction(kSignals[i], &action, &before_[i]);
    if (before_[i].sa_handler == SIG_IGN) ::sigaction(kSignals[i], &before_[i], nullptr);
  }
}

DeferredSignals::~DeferredSignals() {
  for (std::size_t i = 0; i < std::size(kSignals); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
  if (waiting != 0) std::raise(waiting);
}

void DeferredSignals::check() { require(waiting == 0, ErrorCode::kCancelled, "ended by a signal"); }

void SignalledExecutor::parallel_for(Index n_tasks, Task task) {
  workers_.parallel_for(n_tasks, [&](Index i, int worker) {
    DeferredSignals::check();
    task(i, worker);
  });
}

}  // namespace mixtral::cli
