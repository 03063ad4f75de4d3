// Counts and bounds the allocations of this program and makes chosen ones fail. The test program replaces operator new.
#pragma once

#include <cstddef>

namespace mixtral::test {

// Allocations through operator new on this thread since it began.
std::size_t allocations() noexcept;

// While it lives, this thread's allocation number `nth` (0: the next one) throws std::bad_alloc.
class FailingAllocation {
 public:
  explicit FailingAllocation(std::size_t nth) noexcept;
  ~FailingAllocation();
  FailingAllocation(const FailingAllocation&) = delete;
  FailingAllocation& operator=(const FailingAllocation&) = delete;
};

// While it lives, a request of this thread above `limit_bytes` throws std::bad_alloc. One at a time.
class AllocationWatch {
 public:
  explicit AllocationWatch(std::size_t limit_bytes) noexcept;
  ~AllocationWatch();
  AllocationWatch(const AllocationWatch&) = delete;
  AllocationWatch& operator=(const AllocationWatch&) = delete;

  // Bytes of the largest single request so far, refused ones included.
  std::size_t largest() const noexcept;
};

}  // namespace mixtral::test
