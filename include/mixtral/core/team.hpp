// Workers that stand by between parallel sections.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>

#include "mixtral/core/error.hpp"
#include "mixtral/core/executor.hpp"

namespace mixtral::detail {

inline void pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

// The leader opens sections; workers inside serve() draw their tasks. A section ends when its last task has: a worker
// that the system holds up, or that never came, is waited for only if it has a task. Between sections workers spin for
// some tens of microseconds, which a forward pass of many short sections needs, then yield, then sleep.
class Team final : public Executor {
 public:
  explicit Team(int n_workers) noexcept : n_workers_(n_workers) {}

  int n_workers() const noexcept override { return n_workers_; }

  void parallel_for(Index n_tasks, Task task) override {
    require(n_tasks < kIdle, "parallel_for: ", n_tasks, " tasks");
    const FloatScope floats;
    if (n_tasks <= 1) {
      if (n_tasks == 1) task(floats, 0, 0);
      return;
    }
    open(static_cast<std::uint32_t>(n_tasks), task);
    while (draw(floats, 0)) {
    }
    for (int tries = 0; done_.load(std::memory_order_acquire) < n_tasks; ++tries) relax(tries);
    if (failed_.load(std::memory_order_relaxed)) std::rethrow_exception(error_);
  }

  // A worker in [1, n_workers) draws tasks until close().
  void serve(int worker) noexcept {
    for (;;) {
      const std::uint64_t seen = state_.load(std::memory_order_acquire);
      if (seen == kClosed) return;
      if (draw_all(worker)) continue;
      int tries = 0;
      while (state_.load(std::memory_order_relaxed) == seen && tries < kSpins + kYields) relax(tries++);
      if (tries == kSpins + kYields) state_.wait(seen, std::memory_order_relaxed);
    }
  }

  void close() noexcept {
    state_.store(kClosed, std::memory_order_release);
    state_.notify_all();
  }

 private:
  // state_ is the number of the section and, below it, the next task. While a section is being set up there is none.
  static constexpr std::uint32_t kIdle = 0xffffffff;
  static constexpr std::uint64_t kClosed = ~std::uint64_t{0};
  static constexpr int kSpins = 1 << 11, kYields = 1 << 7;

  static void relax(int tries) noexcept {
    if (tries < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }

  void open(std::uint32_t n_tasks, const Task& task) noexcept {
    section_ = (section_ + 1) & 0x7fffffff;
    const std::uint64_t base = std::uint64_t{section_} << 32;
    state_.store(base | kIdle, std::memory_order_relaxed);
    // Released after the line above: who sees these sees that the old section is over, and draws nothing from it.
    n_tasks_.store(n_tasks, std::memory_order_release);
    task_.store(&task, std::memory_order_release);
    done_.store(0, std::memory_order_relaxed);
    failed_.store(false, std::memory_order_relaxed);
    state_.store(base, std::memory_order_release);
    state_.notify_all();
  }

  // Runs the tasks that are left; false: there was none.
  bool draw_all(int worker) noexcept {
    const FloatScope floats;
    if (!draw(floats, worker)) return false;
    while (draw(floats, worker)) {
    }
    return true;
  }

  // Runs the next task, if there is one. Nothing that is read before the exchange succeeds is trusted: only then is
  // the section known to be the one that was looked at, and it does not end before its task has.
  bool draw(const FloatScope& floats, int worker) noexcept {
    std::uint64_t state = state_.load(std::memory_order_acquire);
    for (;;) {
      const auto i = static_cast<std::uint32_t>(state);
      if (i >= n_tasks_.load(std::memory_order_acquire)) return false;
      const Task* task = task_.load(std::memory_order_acquire);
      if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) continue;
      run(*task, floats, i, worker);
      return true;
    }
  }

  void run(const Task& task, const FloatScope& floats, Index i, int worker) noexcept {
    if (!failed_.load(std::memory_order_relaxed)) {
      try {
        task(floats, i, worker);
      } catch (...) {
        // The leader reads error_ after done_ has counted this task.
        if (!failed_.exchange(true, std::memory_order_relaxed)) error_ = std::current_exception();
      }
    }
    done_.fetch_add(1, std::memory_order_acq_rel);
  }

  int n_workers_;
  std::uint32_t section_ = 0;  // the leader's
  alignas(64) std::atomic<std::uint64_t> state_{kIdle};
  std::atomic<std::uint32_t> n_tasks_{0};
  std::atomic<const Task*> task_{nullptr};
  alignas(64) std::atomic<Index> done_{0};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;
};

}  // namespace mixtral::detail
