// Lets the passes of several sessions take turns on one executor.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

#include "mixtral/core/error.hpp"

namespace mixtral {

// A mutex that is granted in the order of asking: a session that decodes in a loop does not keep the others out.
class TurnLock {
 public:
  // Throws Error(kBusy) if this thread holds it already: it would wait for itself.
  void lock() {
    std::unique_lock guard(mutex_);
    require(owner_ != std::this_thread::get_id(), ErrorCode::kBusy,
            "a step may not start another step on the same threads");
    const std::uint64_t ticket = next_++;
    turn_.wait(guard, [&] { return ticket == serving_; });
    owner_ = std::this_thread::get_id();
  }

  void unlock() noexcept {
    {
      const std::lock_guard guard(mutex_);
      owner_ = {};
      ++serving_;
    }
    turn_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable turn_;
  std::uint64_t next_ = 0, serving_ = 0;
  std::thread::id owner_;
};

}  // namespace mixtral
