// Floating-point environments that a host may bring: the four rounding modes, with denormals kept and flushed to zero,
// and one in which every exception traps.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "mixtral/core/float_environment.hpp"

namespace mixtral::test {

struct NamedFloatState {
  std::string name;
  detail::FloatState state;
};

// None where only the C library can change the environment.
inline std::vector<NamedFloatState> float_environments() {
  std::vector<NamedFloatState> all;
  [[maybe_unused]] const char* const modes[] = {"rounding mode 0", "rounding mode 1", "rounding mode 2",
                                                "rounding mode 3"};
#if defined(__x86_64__)
  constexpr std::uint32_t kFlush = 0x8040, kMasks = 0x1f80, kUnderflowed = 0x10;  // FTZ and DAZ; a flag
  for (std::uint32_t mode = 0; mode < 4; ++mode) {
    const auto x87 = static_cast<std::uint16_t>(0x037f | mode << 10);
    all.push_back({modes[mode], {kMasks | mode << 13 | kUnderflowed, x87}});
    all.push_back({std::string(modes[mode]) + ", flushing", {kMasks | mode << 13 | kFlush, x87}});
  }
  all.push_back({"trapping", {0, 0x0340}});
#elif defined(__aarch64__)
  constexpr std::uint64_t kFlush = 1u << 24, kUnderflowed = 1u << 3;
  for (std::uint64_t mode = 0; mode < 4; ++mode) {
    all.push_back({modes[mode], {mode << 22, kUnderflowed}});
    all.push_back({std::string(modes[mode]) + ", flushing", {mode << 22 | kFlush, 0}});
  }
#endif
  return all;
}

// This thread's environment while it lives.
class HostFloats {
 public:
  explicit HostFloats(const detail::FloatState& state) noexcept : before_(detail::FloatState::read()) { state.write(); }
  ~HostFloats() { before_.write(); }
  HostFloats(const HostFloats&) = delete;
  HostFloats& operator=(const HostFloats&) = delete;

 private:
  detail::FloatState before_;
};

// compute() gives equal results in every environment, and leaves each as it was.
template <class F>
void check_in_every_float_environment(F&& compute) {
  const auto want = compute();
  for (const NamedFloatState& host : float_environments()) {
    CAPTURE(host.name);
    auto got = want;
    detail::FloatState after;
    {
      const HostFloats floats(host.state);
      got = compute();
      after = detail::FloatState::read();
    }
    CHECK(got == want);
    CHECK((after == host.state));
  }
}

}  // namespace mixtral::test
