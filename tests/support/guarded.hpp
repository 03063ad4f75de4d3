// Memory that ends where an inaccessible page begins: a kernel that touches one byte too many dies. The
// sanitizers cannot see into kernels, which are always built without them.
#pragma once

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <span>

namespace mixtral::test {

template <class T>
class Guarded {
 public:
  explicit Guarded(std::size_t count) : count_(count) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    bytes_ = (count * sizeof(T) + page - 1) / page * page + page;
    void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(p != MAP_FAILED);
    base_ = static_cast<std::byte*>(p);
    std::byte* fence = base_ + bytes_ - page;
    REQUIRE(mprotect(fence, page, PROT_NONE) == 0);
    data_ = reinterpret_cast<T*>(fence - count * sizeof(T));
  }
  explicit Guarded(std::span<const T> values) : Guarded(values.size()) {
    if (!values.empty()) std::memcpy(data_, values.data(), values.size_bytes());
  }
  ~Guarded() { munmap(base_, bytes_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  T* data() const noexcept { return data_; }
  const std::byte* bytes() const noexcept { return reinterpret_cast<const std::byte*>(data_); }
  std::span<T> span() const noexcept { return {data_, count_}; }

 private:
  std::size_t count_, bytes_ = 0;
  std::byte* base_ = nullptr;
  T* data_ = nullptr;
};

}  // namespace mixtral::test
