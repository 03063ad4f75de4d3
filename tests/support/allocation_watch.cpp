#include "support/allocation_watch.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <limits>
#include <new>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MIXTRAL_TEST_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MIXTRAL_TEST_SANITIZER 1
#endif
#endif

namespace mixtral::test {
namespace {

std::atomic<bool> watching{false};
std::atomic<std::size_t> largest_bytes{0};

void note(std::size_t bytes) noexcept {
  if (watching && bytes > largest_bytes) largest_bytes = bytes;
}

}  // namespace
}  // namespace mixtral::test

#ifdef MIXTRAL_TEST_SANITIZER

// Operators of our own would blind the sanitizer; it has hooks, and ends the program on absurd sizes itself.
// Declared here because gcc's packages lack the header.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*, std::size_t),
                                                         void (*on_free)(const volatile void*));

namespace mixtral::test {

AllocationWatch::AllocationWatch(std::size_t) {
  static const int installed = __sanitizer_install_malloc_and_free_hooks(
      [](const volatile void*, std::size_t bytes) { note(bytes); }, [](const volatile void*) {});
  if (installed == 0) std::abort();
  largest_bytes = 0;
  watching = true;
}

}  // namespace mixtral::test

#else

namespace mixtral::test {
namespace {

std::atomic<std::size_t> limit{std::numeric_limits<std::size_t>::max()};

void* allocate(std::size_t bytes, std::size_t alignment) {
  note(bytes);
  if (watching && bytes > limit) throw std::bad_alloc();
  void* p = nullptr;
  if (::posix_memalign(&p, std::max(alignment, sizeof(void*)), std::max<std::size_t>(bytes, 1)) != 0) {
    throw std::bad_alloc();
  }
  return p;
}

}  // namespace

AllocationWatch::AllocationWatch(std::size_t limit_bytes) {
  limit = limit_bytes;
  largest_bytes = 0;
  watching = true;
}

}  // namespace mixtral::test

// The array and nothrow forms of the standard library call these.
void* operator new(std::size_t bytes) { return mixtral::test::allocate(bytes, __STDCPP_DEFAULT_NEW_ALIGNMENT__); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return mixtral::test::allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

#endif

namespace mixtral::test {

AllocationWatch::~AllocationWatch() { watching = false; }

std::size_t AllocationWatch::largest() const noexcept { return largest_bytes; }

}  // namespace mixtral::test
