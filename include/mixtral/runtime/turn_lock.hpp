// Lets the passes of several sessions take turns on one executor.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

#include "mixtral/core/fork_mark.hpp"

namespace mixtral {

// A mutex that is granted in the order of asking: a session that decodes in a loop does not keep the others out.
//
// A child of fork() has a copy of it, but not the threads that held it or waited for it at that time. Such a copy says
// so instead of letting the child wait for them; one that nobody held works on.
class TurnLock {
 public:
  // Throws Error(kBusy) if this thread holds it already, for it would wait for itself, and if another thread held it
  // when this process was forked.
  void lock();
  void unlock() noexcept;

 private:
  void require_no_dead_holder();

  // The next ticket and the one whose turn it is: equal while nobody holds it.
  std::atomic<std::uint64_t> next_{0}, serving_{0};
  std::atomic<std::thread::id> owner_{};
  detail::ForkMark process_;  // in which the tickets were given out
};

}  // namespace mixtral
