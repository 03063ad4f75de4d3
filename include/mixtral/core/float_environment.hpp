// How a thread's floating-point unit rounds, treats denormals and traps exceptions. A host may have changed any of
// that; what the library computes must not depend on it, nor may the host find it changed.
#pragma once

#include <cstdint>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <cfenv>
#endif

namespace mixtral {

namespace detail {

// One state of the unit: how it computes, and the flags of exceptions that have occurred. Made by default: the
// library's, which rounds to nearest, keeps denormals and traps nothing. The assembly clobbers memory, so that numbers
// loaded after it are computed after it.
#if defined(__x86_64__)

struct FloatState {
  std::uint32_t mxcsr = 0x1f80;
  std::uint16_t x87 = 0x037f;  // its control word: the C library's strtod() rounds by it

  static FloatState read() noexcept {
    FloatState s;
    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(s.mxcsr), "=m"(s.x87) : : "memory");
    return s;
  }
  void write() const noexcept { __asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(mxcsr), "m"(x87) : "memory"); }
  bool computes_as(const FloatState& other) const noexcept {
    constexpr std::uint32_t kFlags = 0x3f;
    return (mxcsr | kFlags) == (other.mxcsr | kFlags) && x87 == other.x87;
  }
  bool operator==(const FloatState&) const = default;
};

#elif defined(__aarch64__)

struct FloatState {
  std::uint64_t fpcr = 0, fpsr = 0;

  static FloatState read() noexcept {
    FloatState s;
    __asm__ volatile("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(s.fpcr), "=r"(s.fpsr) : : "memory");
    return s;
  }
  void write() const noexcept { __asm__ volatile("msr fpcr, %0\n\tmsr fpsr, %1" : : "r"(fpcr), "r"(fpsr) : "memory"); }
  bool computes_as(const FloatState& other) const noexcept { return fpcr == other.fpcr; }
  bool operator==(const FloatState&) const = default;
};

#else

// By the C library, which knows rounding and traps, but no denormals, and whose states cannot be compared.
struct FloatState {
  bool library = true;
  std::fenv_t environment{};

  static FloatState read() noexcept {
    FloatState s{.library = false};
    std::fegetenv(&s.environment);
    return s;
  }
  void write() const noexcept {
    if (!library) {
      std::fesetenv(&environment);
      return;
    }
    std::fenv_t ignored;
    std::feholdexcept(&ignored);
    std::fesetround(FE_TONEAREST);
  }
  bool computes_as(const FloatState&) const noexcept { return false; }
  bool operator==(const FloatState&) const noexcept { return false; }
};

#endif

}  // namespace detail

// To the end of the scope this thread computes as the library does. Then its floating-point environment is what it was
// before, control bits and sticky flags.
class FloatScope {
 public:
  FloatScope() noexcept : FloatScope(detail::FloatState{}) {}
  // Inside `library`'s scope: as its thread did before, for a callback of the host's.
  static FloatScope outside(const FloatScope& library) noexcept { return FloatScope(library.before_); }
  ~FloatScope() {
    // Writing costs more than reading, and most hosts have changed nothing.
    if (detail::FloatState::read() != before_) before_.write();
  }
  FloatScope(const FloatScope&) = delete;
  FloatScope& operator=(const FloatScope&) = delete;

 private:
  explicit FloatScope(const detail::FloatState& wanted) noexcept : before_(detail::FloatState::read()) {
    if (!before_.computes_as(wanted)) wanted.write();
  }

  detail::FloatState before_;
};

}  // namespace mixtral
