#include "mixtral/runtime/huge_pages.hpp"

#include <sys/mman.h>

#include <new>

namespace mixtral {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::byte* take(std::size_t bytes) {
  if (bytes < kHugePage) return BlockSource{}.take(bytes);
  void* block = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (block == MAP_FAILED) throw std::bad_alloc();
  ::madvise(block, bytes, MADV_HUGEPAGE);  // a wish
  return static_cast<std::byte*>(block);
}

void give_back(std::byte* block, std::size_t bytes) noexcept {
  if (bytes < kHugePage) return BlockSource{}.give_back(block, bytes);
  ::munmap(block, bytes);
}

}  // namespace

BlockSource huge_pages() noexcept { return {take, give_back}; }

}  // namespace mixtral
