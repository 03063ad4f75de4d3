// Anonymous memory in huge pages, for weights and probes.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>

namespace mixtral {

// Zero at first, huge pages asked for.
class Arena {
 public:
  explicit Arena(Index count) : size_(static_cast<std::size_t>(count)) {
    void* p = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    madvise(p, size_, MADV_HUGEPAGE);
    data_ = static_cast<std::byte*>(p);
  }
  ~Arena() { munmap(data_, size_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

 private:
  std::byte* data_;
  std::size_t size_;
};

}  // namespace mixtral
