// Ceilings of this machine, measured in the same process just before and after whatever they are compared with.
#pragma once

#include <cstddef>
#include <string>

namespace mixtral::bench {

// Memory for weights and probes: anonymous, zero, huge pages asked for.
class Arena {
 public:
  explicit Arena(std::size_t bytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

 private:
  std::byte* data_;
  std::size_t size_;
};

// Bytes a second that `threads` threads read from `arena` together, the better of one and eight streams a
// thread. The arena must be larger than the caches (1 GiB or more) and written once before.
double dram_read_rate(const Arena& arena, int threads);

// Float32 operations a second of `threads` threads together, each multiply-add counting two, operands in
// registers: AVX-512 or, with `avx512` false, AVX2. In assembly, since gcc 12 spills the accumulators of the
// obvious loop over intrinsics and then reads three times too low.
double fma_rate(int threads, bool avx512);

// The CPU's name as the system tells it, for results.
std::string machine_name();

}  // namespace mixtral::bench
