// Counts the allocations of this program and makes chosen ones fail. The test program replaces operator new.
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

}  // namespace mixtral::test
