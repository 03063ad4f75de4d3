#include "support/probes.hpp"

#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <new>
#include <thread>

namespace mixtral::bench {
namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Runs work(thread) on all threads at once and returns the time from the first start to the last end. OpenMP's
// threads, as the kernels use them: others would compete with those while they spin after a parallel region.
template <class Work>
double time_threads(int threads, Work work) {
  const double begin = seconds();
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int i = 0; i < threads; ++i) work(i);
  return seconds() - begin;
}

// Reads `bytes` (a multiple of streams * 256) as `streams` interleaved streams.
__attribute__((target("avx2"))) void read_streams(const std::byte* data, std::size_t bytes, int streams) {
  const std::size_t each = bytes / static_cast<std::size_t>(streams) / 256 * 256;
  for (std::size_t i = 0; i < each; i += 256) {
    for (int s = 0; s < streams; ++s) {
      const std::byte* p = data + static_cast<std::size_t>(s) * each + i;
      __asm__ volatile(
          "vmovdqu   (%0), %%ymm0\n\tvmovdqu  32(%0), %%ymm1\n\tvmovdqu  64(%0), %%ymm2\n\tvmovdqu  96(%0), %%ymm3\n\t"
          "vmovdqu 128(%0), %%ymm0\n\tvmovdqu 160(%0), %%ymm1\n\tvmovdqu 192(%0), %%ymm2\n\tvmovdqu 224(%0), %%ymm3"
          :
          : "r"(p)
          : "xmm0", "xmm1", "xmm2", "xmm3", "memory");
    }
  }
}

constexpr std::int64_t kFmaRounds = 16'000'000;  // some 45 ms

#define MIXTRAL_FMA12(set) set(0) set(1) set(2) set(3) set(4) set(5) set(6) set(7) set(8) set(9) set(10) set(11)
#define MIXTRAL_FMA_ZMM(i) "vfmadd231ps %%zmm30, %%zmm31, %%zmm" #i "\n\t"
#define MIXTRAL_FMA_YMM(i) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" #i "\n\t"
#define MIXTRAL_ZERO(i) "vpxor %%xmm" #i ", %%xmm" #i ", %%xmm" #i "\n\t"

__attribute__((target("avx512f"))) void fma_loop_avx512(std::int64_t n) {
  __asm__ volatile(MIXTRAL_FMA12(MIXTRAL_ZERO) "vpxord %%zmm30, %%zmm30, %%zmm30\n\tvpxord %%zmm31, %%zmm31, %%zmm31\n"
                   "1:\n\t" MIXTRAL_FMA12(MIXTRAL_FMA_ZMM) "dec %0\n\tjnz 1b"
                   : "+r"(n)
                   :
                   : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                     "xmm30", "xmm31", "cc");
}

__attribute__((target("avx2,fma"))) void fma_loop_avx2(std::int64_t n) {
  __asm__ volatile(MIXTRAL_FMA12(MIXTRAL_ZERO) MIXTRAL_ZERO(14)
                       MIXTRAL_ZERO(15) "1:\n\t" MIXTRAL_FMA12(MIXTRAL_FMA_YMM) "dec %0\n\tjnz 1b"
                   : "+r"(n)
                   :
                   : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
                     "xmm14", "xmm15", "cc");
}

}  // namespace

Arena::Arena(std::size_t bytes) : size_(bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  madvise(p, bytes, MADV_HUGEPAGE);
  data_ = static_cast<std::byte*>(p);
}

Arena::~Arena() { munmap(data_, size_); }

double dram_read_rate(const Arena& arena, int threads) {
  const std::size_t share = arena.size() / static_cast<std::size_t>(threads) / 4096 * 4096;
  double best = 0;
  for (const int streams : {1, 8}) {
    const double time = time_threads(
        threads, [&](int i) { read_streams(arena.data() + static_cast<std::size_t>(i) * share, share, streams); });
    best = std::max(best, static_cast<double>(share) * threads / time);
  }
  return best;
}

double fma_rate(int threads, bool avx512) {
  const double lanes = avx512 ? 16 : 8;
  const double time =
      time_threads(threads, [&](int) { avx512 ? fma_loop_avx512(kFmaRounds) : fma_loop_avx2(kFmaRounds); });
  return 2 * lanes * 12 * static_cast<double>(kFmaRounds) * threads / time;
}

std::string machine_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name"))
      return line.substr(line.find(':') + 2) + ", " + std::to_string(std::thread::hardware_concurrency()) + " CPUs";
  }
  return "unknown";
}

}  // namespace mixtral::bench
