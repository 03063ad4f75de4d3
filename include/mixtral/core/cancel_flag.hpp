// The wish that a step ends early.
#pragma once

#include <atomic>

#include "mixtral/core/error.hpp"

namespace mixtral {

// Set from any thread or signal handler, asked by who works or waits. It stays set until it is cleared.
class CancelFlag {
 public:
  void set() noexcept { set_.store(true); }
  void clear() noexcept { set_.store(false); }
  bool is_set() const noexcept { return set_.load(); }
  // Throws Error(kCancelled) if it is set.
  void check() const { require(!is_set(), ErrorCode::kCancelled, "cancelled"); }

 private:
  static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may set it");
  std::atomic<bool> set_{false};
};

}  // namespace mixtral
