#include "mixtral/core/arena.hpp"

#include <sys/mman.h>

#include <new>

namespace mixtral {

Arena::Arena(Index bytes) : size_(static_cast<std::size_t>(bytes)) {
  if (size_ == 0) return;
  void* data = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  ::madvise(data, size_, MADV_HUGEPAGE);  // a wish: without huge pages it is slower, nothing else
  data_ = static_cast<std::byte*>(data);
}

Arena::~Arena() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace mixtral
