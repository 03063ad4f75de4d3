// Runs work on standard threads of its own: for hosts without OpenMP and for the thread sanitizer.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "mixtral/core/team.hpp"

namespace mixtral {

// n_workers - 1 threads sleep between calls; the caller is worker 0.
class ThreadExecutor final : public Executor {
 public:
  explicit ThreadExecutor(int n_workers) {
    const int helpers = std::max(1, n_workers) - 1;
    threads_.reserve(static_cast<std::size_t>(helpers));
    try {
      for (int i = 1; i <= helpers; ++i) threads_.emplace_back([this, i] { live(i); });
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
    const auto draw = [&](int worker) { queue.work(worker); };
    const Work work(draw);
    wake(work);
    queue.work(0);
    join();
    queue.rethrow();
  }

  void run_team(FunctionRef<void(Executor& team)> body) override {
    if (threads_.empty()) return body(*this);
    detail::Team team(n_workers());
    const auto serve = [&](int worker) { team.serve(worker); };
    const Work work(serve);
    wake(work);
    std::exception_ptr error;
    try {
      body(team);
    } catch (...) {
      error = std::current_exception();
    }
    team.close();
    join();
    if (error) std::rethrow_exception(error);
  }

 private:
  using Work = FunctionRef<void(int worker)>;

  // Every thread runs `work`, which lives until join() has returned.
  void wake(const Work& work) {
    {
      const std::lock_guard lock(mutex_);
      work_ = &work;
      ++round_;
      busy_ = static_cast<int>(threads_.size());
    }
    wake_.notify_all();
  }
  void join() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
    work_ = nullptr;
  }

  void live(int worker) {
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stopping_ || round_ != seen; });
      if (stopping_) return;
      seen = round_;
      const Work* work = work_;
      lock.unlock();
      (*work)(worker);
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
  const Work* work_ = nullptr;
  std::uint64_t round_ = 0;
  int busy_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace mixtral
