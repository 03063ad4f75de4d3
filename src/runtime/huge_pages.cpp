#include "mixtral/runtime/huge_pages.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <limits>
#include <new>

namespace mixtral {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

constexpr std::size_t whole_pages(std::size_t bytes) noexcept {
  return (bytes + kHugePage - 1) / kHugePage * kHugePage;
}

std::byte* take(std::size_t bytes) {
  if (bytes < kHugePage) return BlockSource{}.take(bytes);
  if (bytes > std::numeric_limits<std::size_t>::max() - 2 * kHugePage) throw std::bad_alloc();
  // One page more, of which the ends beside the aligned ones are given back.
  const std::size_t size = whole_pages(bytes);
  void* mapped = ::mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  auto* const begin = static_cast<std::byte*>(mapped);
  const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(begin) % kHugePage) % kHugePage;
  if (before > 0) ::munmap(begin, before);
  ::munmap(begin + before + size, kHugePage - before);
  ::madvise(begin + before, size, MADV_HUGEPAGE);  // a wish
  return begin + before;
}

void give_back(std::byte* block, std::size_t bytes) noexcept {
  if (bytes < kHugePage) return BlockSource{}.give_back(block, bytes);
  ::munmap(block, whole_pages(bytes));
}

}  // namespace

BlockSource huge_pages() noexcept { return {take, give_back}; }

}  // namespace mixtral
