#include "probes/probes.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <thread>

namespace mixtral::probes {
namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Reads `bytes` (a multiple of streams * 256) as `streams` interleaved streams.
using ReadStreams = void (*)(const std::byte* data, std::size_t bytes, std::size_t streams);

void read_streams_plain(const std::byte* data, std::size_t bytes, std::size_t streams) {
  const std::size_t each = bytes / streams / 256 * 256;
  for (std::size_t i = 0; i < each; i += 256) {
    for (std::size_t s = 0; s < streams; ++s) {
      const auto* words = reinterpret_cast<const volatile std::uint64_t*>(data + s * each + i);
      for (std::size_t k = 0; k < 256 / sizeof *words; ++k) static_cast<void>(words[k]);
    }
  }
}

// A loop of instructions on registers: so many operations a round.
struct Loop {
  Isa needs;
  std::int64_t operations;
  void (*run)(std::int64_t rounds);
};

#if defined(__x86_64__)

// 256 bytes of each stream in turn.
#define MIXTRAL_READ_STREAMS(code, ...)                                  \
  const std::size_t each = bytes / streams / 256 * 256;                  \
  for (std::size_t i = 0; i < each; i += 256) {                          \
    for (std::size_t s = 0; s < streams; ++s) {                          \
      __asm__ volatile(code : : "r"(data + s * each + i) : __VA_ARGS__); \
    }                                                                    \
  }

__attribute__((target("avx2"))) void read_streams_avx2(const std::byte* data, std::size_t bytes, std::size_t streams) {
  MIXTRAL_READ_STREAMS(
      "vmovdqu   (%0), %%ymm0\n\tvmovdqu  32(%0), %%ymm1\n\tvmovdqu  64(%0), %%ymm2\n\tvmovdqu  96(%0), %%ymm3\n\t"
      "vmovdqu 128(%0), %%ymm0\n\tvmovdqu 160(%0), %%ymm1\n\tvmovdqu 192(%0), %%ymm2\n\tvmovdqu 224(%0), %%ymm3",
      "xmm0", "xmm1", "xmm2", "xmm3", "memory")
}

// A tenth faster: half the instructions for each line, so more lines are asked for at a time.
__attribute__((target("avx512f"))) void read_streams_avx512(const std::byte* data, std::size_t bytes,
                                                            std::size_t streams) {
  MIXTRAL_READ_STREAMS(
      "vmovdqu64    (%0), %%zmm0\n\tvmovdqu64  64(%0), %%zmm1\n\t"
      "vmovdqu64 128(%0), %%zmm2\n\tvmovdqu64 192(%0), %%zmm3",
      "xmm0", "xmm1", "xmm2", "xmm3", "memory")
}

#define MIXTRAL_12(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11)
#define MIXTRAL_ZERO(i) "vpxor %%xmm" #i ", %%xmm" #i ", %%xmm" #i "\n\t"
#define MIXTRAL_ZERO_16 MIXTRAL_12(MIXTRAL_ZERO) MIXTRAL_ZERO(12) MIXTRAL_ZERO(13) MIXTRAL_ZERO(14) MIXTRAL_ZERO(15)
#define MIXTRAL_ROUND(code) "1:\n\t" code "dec %0\n\tjnz 1b"
#define MIXTRAL_CLOBBERS                                                                                              \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", \
      "xmm14", "xmm15", "cc"

// Twelve chains: a multiply-add takes four cycles (vpdpbusd five), two a cycle.
#define MIXTRAL_FMA_ZMM(i) "vfmadd231ps %%zmm12, %%zmm13, %%zmm" #i "\n\t"
__attribute__((target("avx512f"))) void fma_avx512(std::int64_t n) {
  __asm__ volatile(MIXTRAL_ZERO_16 MIXTRAL_ROUND(MIXTRAL_12(MIXTRAL_FMA_ZMM)) : "+r"(n) : : MIXTRAL_CLOBBERS);
}

#define MIXTRAL_FMA_YMM(i) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" #i "\n\t"
__attribute__((target("avx2,fma"))) void fma_avx2(std::int64_t n) {
  __asm__ volatile(MIXTRAL_ZERO_16 MIXTRAL_ROUND(MIXTRAL_12(MIXTRAL_FMA_YMM)) : "+r"(n) : : MIXTRAL_CLOBBERS);
}

#define MIXTRAL_VNNI(i) "vpdpbusd %%zmm12, %%zmm13, %%zmm" #i "\n\t"
__attribute__((target("avx512f,avx512vnni"))) void products_vnni(std::int64_t n) {
  __asm__ volatile(MIXTRAL_ZERO_16 MIXTRAL_ROUND(MIXTRAL_12(MIXTRAL_VNNI)) : "+r"(n) : : MIXTRAL_CLOBBERS);
}

#define MIXTRAL_VNNI_YMM(i) "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm" #i "\n\t"
__attribute__((target("avx2"))) void products_avx2_vnni(std::int64_t n) {
  __asm__ volatile(MIXTRAL_ZERO_16 MIXTRAL_ROUND(MIXTRAL_12(MIXTRAL_VNNI_YMM)) : "+r"(n) : : MIXTRAL_CLOBBERS);
}

// Six chains of three: products in ymm0 to 5, sums in ymm6 to 11.
#define MIXTRAL_CHAIN(product, sum)                     \
  "vpmaddubsw %%ymm12, %%ymm13, %%ymm" #product         \
  "\n\t"                                                \
  "vpmaddwd %%ymm14, %%ymm" #product ", %%ymm" #product \
  "\n\t"                                                \
  "vpaddd %%ymm" #product ", %%ymm" #sum ", %%ymm" #sum "\n\t"
__attribute__((target("avx2"))) void products_avx2(std::int64_t n) {
  __asm__ volatile(MIXTRAL_ZERO_16 MIXTRAL_ROUND(MIXTRAL_CHAIN(0, 6) MIXTRAL_CHAIN(1, 7) MIXTRAL_CHAIN(2, 8)
                                                     MIXTRAL_CHAIN(3, 9) MIXTRAL_CHAIN(4, 10) MIXTRAL_CHAIN(5, 11))
                   : "+r"(n)
                   :
                   : MIXTRAL_CLOBBERS);
}

// Four chains: 16-bit sums in ymm0 to 3, products in ymm4 to 7, 32-bit sums in ymm8 to 11.
#define MIXTRAL_FIRST(i) "vpmaddubsw %%ymm12, %%ymm13, %%ymm" #i "\n\t"
#define MIXTRAL_NEXT(i, product) MIXTRAL_FIRST(product) "vpaddw %%ymm" #product ", %%ymm" #i ", %%ymm" #i "\n\t"
#define MIXTRAL_LAST(i, product, sum)             \
  "vpmaddwd %%ymm14, %%ymm" #i ", %%ymm" #product \
  "\n\t"                                          \
  "vpaddd %%ymm" #product ", %%ymm" #sum ", %%ymm" #sum "\n\t"
#define MIXTRAL_FIRST_4 MIXTRAL_FIRST(0) MIXTRAL_FIRST(1) MIXTRAL_FIRST(2) MIXTRAL_FIRST(3)
#define MIXTRAL_NEXT_4 MIXTRAL_NEXT(0, 4) MIXTRAL_NEXT(1, 5) MIXTRAL_NEXT(2, 6) MIXTRAL_NEXT(3, 7)
#define MIXTRAL_NEXT_28 \
  MIXTRAL_NEXT_4 MIXTRAL_NEXT_4 MIXTRAL_NEXT_4 MIXTRAL_NEXT_4 MIXTRAL_NEXT_4 MIXTRAL_NEXT_4 MIXTRAL_NEXT_4
#define MIXTRAL_LAST_4 MIXTRAL_LAST(0, 4, 8) MIXTRAL_LAST(1, 5, 9) MIXTRAL_LAST(2, 6, 10) MIXTRAL_LAST(3, 7, 11)
__attribute__((target("avx2"))) void products_avx2_eight(std::int64_t n) {
  __asm__ volatile(MIXTRAL_ZERO_16 MIXTRAL_ROUND(MIXTRAL_FIRST_4 MIXTRAL_NEXT_28 MIXTRAL_LAST_4)
                   : "+r"(n)
                   :
                   : MIXTRAL_CLOBBERS);
}

#define MIXTRAL_PAIRS(i) "vdpbf16ps %%zmm12, %%zmm13, %%zmm" #i "\n\t"
__attribute__((target("avx512f"))) void products_pairs(std::int64_t n) {
  __asm__ volatile(MIXTRAL_ZERO_16 MIXTRAL_ROUND(MIXTRAL_12(MIXTRAL_PAIRS)) : "+r"(n) : : MIXTRAL_CLOBBERS);
}

// Two tiles of either operand make four products. In one go, since tiles are no operands that a compiler could keep.
#define MIXTRAL_TILES(product)                                                                                      \
  struct alignas(64) {                                                                                              \
    std::uint8_t palette = 1, rest[15] = {};                                                                        \
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};                                                 \
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};                                                       \
  } const config;                                                                                                   \
  alignas(64) static const std::byte operands[4 * 1024] = {};                                                       \
  __asm__ volatile(                                                                                                 \
      "ldtilecfg %1\n\ttilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3\n\t" MIXTRAL_ROUND( \
          "tileloadd (%2,%3,1), %%tmm4\n\ttileloadd 2048(%2,%3,1), %%tmm6\n\t" product                              \
          " %%tmm6, %%tmm4, %%tmm0\n\ttileloadd 3072(%2,%3,1), %%tmm7\n\t" product                                  \
          " %%tmm7, %%tmm4, %%tmm1\n\ttileloadd 1024(%2,%3,1), %%tmm5\n\t" product                                  \
          " %%tmm6, %%tmm5, %%tmm2\n\t" product " %%tmm7, %%tmm5, %%tmm3\n\t") "\n\ttilerelease"                    \
      : "+r"(n)                                                                                                     \
      : "m"(config), "r"(operands), "r"(std::int64_t{64})                                                           \
      : "cc", "memory")
void products_amx(std::int64_t n) { MIXTRAL_TILES("tdpbsud"); }
void products_amx_pairs(std::int64_t n) { MIXTRAL_TILES("tdpbf16ps"); }

constexpr Loop kF32[] = {{Isa::kAvx2, 2 * 8 * 12, fma_avx2}, {Isa::kAvx512, 2 * 16 * 12, fma_avx512}};
// By ByteProducts.
constexpr Loop kByteProducts[] = {{Isa::kAvx2, 2 * 32 * 6, products_avx2},
                                  {Isa::kAvx2, 2 * 32 * 4 * 8, products_avx2_eight},
                                  {Isa::kAvx512Vnni, 2 * 64 * 12, products_vnni},
                                  {Isa::kAvx2Vnni, 2 * 32 * 12, products_avx2_vnni},
                                  {Isa::kAmxInt8, 2 * 4 * 16 * 16 * 64, products_amx}};

// The best loop of the units for bf16 pairs; nobody's: nullptr.
const Loop* pair_loop(Isa isa) {
  static constexpr Loop kPairs{Isa::kAvx512, 2 * 32 * 12, products_pairs},
      kTiles{Isa::kAmxInt8, 2 * 4 * 16 * 16 * 32, products_amx_pairs};
  switch (pair_unit(isa)) {
    case PairUnit::kAvx512Bf16: return &kPairs;
    case PairUnit::kAmxBf16: return &kTiles;
    default: return nullptr;
  }
}

ReadStreams best_reader() {
  if (supported(Isa::kAvx512)) return read_streams_avx512;
  return supported(Isa::kAvx2) ? read_streams_avx2 : read_streams_plain;
}

#else

constexpr std::span<const Loop> kF32, kByteProducts;

const Loop* pair_loop(Isa) { return nullptr; }

ReadStreams best_reader() { return read_streams_plain; }

#endif

// Operations a second. Short tasks, drawn by whoever is free as those of the kernels are: some 45 ms altogether.
double rate_of(const Loop& loop, Executor& executor) {
  if (!supported(loop.needs)) return 0;
  constexpr Index kTasks = 16;
  constexpr std::int64_t kOperations = 400'000'000;  // of a task: 2 to 3 ms at 64 to 128 operations a cycle and 2.3 GHz
  const std::int64_t rounds = kOperations / loop.operations;
  const Index tasks = kTasks * executor.n_workers();
  const double begin = seconds();
  executor.parallel_for(tasks, [&](Index, int) { loop.run(rounds); });
  return static_cast<double>(tasks * rounds * loop.operations) / (seconds() - begin);
}

}  // namespace

double dram_read_rate(const Arena& arena, Executor& executor) {
  constexpr std::size_t kTaskBytes = std::size_t{8} << 20;
  const auto tasks = static_cast<Index>(arena.size() / kTaskBytes);
  const ReadStreams read = best_reader();
  double best = 0;
  for (const std::size_t streams : {1, 8}) {
    const double begin = seconds();
    executor.parallel_for(tasks, [&](Index i, int) {
      read(arena.data() + static_cast<std::size_t>(i) * kTaskBytes, kTaskBytes, streams);
    });
    best = std::max(best, static_cast<double>(tasks) * static_cast<double>(kTaskBytes) / (seconds() - begin));
  }
  return best;
}

double f32_rate(Executor& executor, Isa isa) {
  const Loop* widest = nullptr;
  for (const Loop& loop : kF32) {
    if (includes(isa, loop.needs) && supported(loop.needs)) widest = &loop;
  }
  return widest == nullptr ? 0 : rate_of(*widest, executor);
}

double byte_product_rate(Executor& executor, ByteProducts kind) {
  const auto i = static_cast<std::size_t>(kind);
  return i < std::size(kByteProducts) ? rate_of(kByteProducts[i], executor) : 0;
}

double matrix_unit_sample() {
  const auto i = static_cast<std::size_t>(ByteProducts::kAmx);
  if (i >= std::size(kByteProducts) || !supported(Isa::kAmxInt8)) return 0;
  constexpr std::int64_t kRounds = 1500;
  const double begin = seconds();
  kByteProducts[i].run(kRounds);
  return static_cast<double>(kRounds * kByteProducts[i].operations) / (seconds() - begin);
}

double byte_product_rate(Executor& executor, Isa isa) {
  double best = 0;
  for (const Loop& loop : kByteProducts) {
    if (includes(isa, loop.needs)) best = std::max(best, rate_of(loop, executor));
  }
  return best;
}

double pair_product_rate(Executor& executor, Isa isa) {
  const Loop* loop = pair_loop(isa);
  return loop == nullptr ? 0 : rate_of(*loop, executor);
}

std::string machine_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name"))
      return line.substr(line.find(':') + 2) + ", " + std::to_string(std::thread::hardware_concurrency()) + " CPUs";
  }
  return "unknown";
}

}  // namespace mixtral::probes
