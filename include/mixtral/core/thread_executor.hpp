// Runs work on standard threads of its own: for hosts without OpenMP and for the thread sanitizer.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "mixtral/core/executor.hpp"

namespace mixtral {

// n_workers - 1 threads sleep between calls; the caller is worker 0.
class ThreadExecutor final : public Executor {
 public:
  explicit ThreadExecutor(int n_workers) {
    const int helpers = std::max(1, n_workers) - 1;
    threads_.reserve(static_cast<std::size_t>(helpers));
    try {
      for (int i = 1; i <= helpers; ++i) threads_.emplace_back([this, i] { serve(i); });
    } catch (...) {  // the system refused a thread: end those that run, then report
      stop();
      throw;
    }
  }
  ~ThreadExecutor() override { stop(); }
  ThreadExecutor(const ThreadExecutor&) = delete;
  ThreadExecutor& operator=(const ThreadExecutor&) = delete;

  int n_workers() const noexcept override { return static_cast<int>(threads_.size()) + 1; }

  void parallel_for(Index n_tasks, Task task) override {
    detail::TaskQueue queue(n_tasks, task);
    if (n_tasks <= 1) {  // not worth waking anyone
      queue.work(0);
      return queue.rethrow();
    }
    {
      const std::lock_guard lock(mutex_);
      queue_ = &queue;
      ++round_;
      busy_ = static_cast<int>(threads_.size());
    }
    wake_.notify_all();
    queue.work(0);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
    queue_ = nullptr;
    lock.unlock();
    queue.rethrow();
  }

 private:
  void serve(int worker) {
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stopping_ || round_ != seen; });
      if (stopping_) return;
      seen = round_;
      detail::TaskQueue* queue = queue_;
      lock.unlock();
      queue->work(worker);
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  detail::TaskQueue* queue_ = nullptr;
  std::uint64_t round_ = 0;
  int busy_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace mixtral
