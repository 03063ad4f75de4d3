#include "support/allocations.hpp"

#include <atomic>
#include <cstdlib>
#include <limits>
#include <new>

namespace mixtral::test {
namespace {

constexpr std::size_t kNever = std::numeric_limits<std::size_t>::max();
thread_local std::size_t count = 0;
thread_local std::size_t fails_at = kNever;
std::atomic<std::size_t> asked{0}, made{0}, freed{0};

// Address space that no test needs, and no sanitizer ends the program over.
constexpr std::size_t kMostBytes = std::size_t{1} << 38;
std::atomic<std::size_t> limit_bytes{kMostBytes}, largest_bytes{0};

void* allocate(std::size_t bytes, std::size_t alignment) noexcept {
  asked.fetch_add(1, std::memory_order_relaxed);
  if (count++ == fails_at) return nullptr;
  if (bytes > largest_bytes) largest_bytes = bytes;
  if (bytes > limit_bytes) return nullptr;
  void* const p = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (p != nullptr) made.fetch_add(1, std::memory_order_relaxed);
  return p;
}

void release(void* p) noexcept {
  if (p != nullptr) freed.fetch_add(1, std::memory_order_relaxed);
  std::free(p);
}

void* allocate_or_throw(std::size_t bytes, std::size_t alignment) {
  void* p = allocate(bytes == 0 ? 1 : bytes, alignment);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

constexpr std::size_t kDefault = __STDCPP_DEFAULT_NEW_ALIGNMENT__;

}  // namespace

std::size_t allocations() noexcept { return count; }
std::size_t allocations_of_all_threads() noexcept { return asked; }
std::ptrdiff_t live_allocations() noexcept { return static_cast<std::ptrdiff_t>(made - freed); }
FailingAllocation::FailingAllocation(std::size_t nth) noexcept { fails_at = count + nth; }
FailingAllocation::~FailingAllocation() { fails_at = kNever; }

AllocationWatch::AllocationWatch(std::size_t limit) noexcept {
  limit_bytes = limit;
  largest_bytes = 0;
}
AllocationWatch::~AllocationWatch() { limit_bytes = kMostBytes; }
std::size_t AllocationWatch::largest() const noexcept { return largest_bytes; }

}  // namespace mixtral::test

// Every form is replaced, since the sanitizers bring their own ones which do not end up here.
using mixtral::test::allocate;
using mixtral::test::allocate_or_throw;
using mixtral::test::kDefault;
using mixtral::test::release;

void* operator new(std::size_t n) { return allocate_or_throw(n, kDefault); }
void* operator new[](std::size_t n) { return allocate_or_throw(n, kDefault); }
void* operator new(std::size_t n, std::align_val_t a) { return allocate_or_throw(n, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return allocate_or_throw(n, static_cast<std::size_t>(a)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return allocate(n == 0 ? 1 : n, kDefault); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return allocate(n == 0 ? 1 : n, kDefault); }
void operator delete(void* p) noexcept { release(p); }
void operator delete[](void* p) noexcept { release(p); }
void operator delete(void* p, std::size_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t) noexcept { release(p); }
void operator delete(void* p, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { release(p); }
