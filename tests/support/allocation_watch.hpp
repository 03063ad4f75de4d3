// Sees every allocation of the program while it lives, so that a test can bound them.
#pragma once

#include <cstddef>

namespace mixtral::test {

// One at a time. Without a sanitizer, a request above `limit_bytes` throws std::bad_alloc.
class AllocationWatch {
 public:
  explicit AllocationWatch(std::size_t limit_bytes);
  ~AllocationWatch();
  AllocationWatch(const AllocationWatch&) = delete;
  AllocationWatch& operator=(const AllocationWatch&) = delete;

  // Bytes of the largest single request so far.
  std::size_t largest() const noexcept;
};

}  // namespace mixtral::test
