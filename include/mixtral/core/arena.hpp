// Memory for weights: anonymous, huge pages where the system has them.
#pragma once

#include <cstddef>
#include <span>

#include "mixtral/core/types.hpp"

namespace mixtral {

// Zero at first, page-aligned. Pages come when they are first written.
class Arena {
 public:
  // Throws std::bad_alloc.
  explicit Arena(Index bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  std::span<std::byte> bytes() const noexcept { return {data_, size_}; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_;
};

}  // namespace mixtral
