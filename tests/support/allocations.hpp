// Counts and bounds the allocations of this program and makes chosen ones fail. The test program replaces
// operator new, with the sanitizers too: memory still comes from the allocator that they watch.
#pragma once

#include <cstddef>

namespace mixtral::test {

// Allocations through operator new on this thread since it began.
std::size_t allocations() noexcept;

// The same of all threads together, and how many of them have not been freed.
std::size_t allocations_of_all_threads() noexcept;
std::ptrdiff_t live_allocations() noexcept;

// While it lives, this thread's allocation number `nth` (0: the next one) throws std::bad_alloc.
class FailingAllocation {
 public:
  explicit FailingAllocation(std::size_t nth) noexcept;
  ~FailingAllocation();
  FailingAllocation(const FailingAllocation&) = delete;
  FailingAllocation& operator=(const FailingAllocation&) = delete;
};

// Sees every allocation of all threads while it lives; one above `limit_bytes` throws std::bad_alloc. One watch at
// a time.
class AllocationWatch {
 public:
  explicit AllocationWatch(std::size_t limit_bytes) noexcept;
  ~AllocationWatch();
  AllocationWatch(const AllocationWatch&) = delete;
  AllocationWatch& operator=(const AllocationWatch&) = delete;

  // Bytes of the largest single request so far.
  std::size_t largest() const noexcept;
};

}  // namespace mixtral::test
