#include "mixtral/runtime/turn_lock.hpp"

#include "mixtral/core/error.hpp"

namespace mixtral {

void TurnLock::lock() {
  require(owner_.load(std::memory_order_relaxed) != std::this_thread::get_id(), ErrorCode::kBusy,
          "a step may not start another step on the same threads");
  require_no_dead_holder();
  const std::uint64_t ticket = next_.fetch_add(1);
  for (std::uint64_t now = serving_.load(); now != ticket; now = serving_.load()) serving_.wait(now);
  owner_.store(std::this_thread::get_id(), std::memory_order_relaxed);
}

void TurnLock::unlock() noexcept {
  owner_.store({}, std::memory_order_relaxed);
  serving_.fetch_add(1);
  serving_.notify_all();
}

// The first call in a child takes the lock over if it is free. Another thread of the child may do so, and take a
// ticket, between two lines here; so what looks held is only held by the dead if the lock is still the parent's.
void TurnLock::require_no_dead_holder() {
  if (!process_.inherited()) return;
  if (next_.load() == serving_.load()) return process_.adopt();
  require(!process_.inherited(), ErrorCode::kBusy,
          "another thread was computing when this process was forked, and it does not exist here: open the model anew "
          "in the child, or fork while nothing computes");
}

}  // namespace mixtral
