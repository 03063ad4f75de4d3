// The one exception class of the library, and `require` for callers' mistakes and hostile files.
#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "mixtral/core/printable.hpp"

namespace mixtral {

// Pinned: values are never reused or reordered (they cross the C ABI).
enum class ErrorCode : std::int32_t {
  kInvalidArgument = 1,  // the caller's mistake
  kNotFound = 2,         // a file, tensor or key does not exist
  kIo = 3,               // the system refused: permissions, full disk, read errors
  kBadFormat = 4,        // a file breaks the rules of its format
  kUnsupported = 5,      // legal, but not implemented here
  kOutOfMemory = 6,
  kContextFull = 7,  // the KV cache or the context has no room left
  kCancelled = 8,
  kInternal = 9,
  kBusy = 10,            // another call is using it
  kBufferTooSmall = 11,  // C ABI: the caller's buffer
};

// what() names the thing and the numbers: "layers.3.w1: expected [14336, 4096], file has [14336, 4095]". It is one line
// of UTF-8 that no terminal obeys, whatever names from files stand in it (core/printable.hpp).
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(printable(message)), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

namespace detail {

inline void append(std::string& out, std::string_view part) { out += part; }
inline void append(std::string& out, char part) { out += part; }
template <class N>
requires(std::integral<N> || std::floating_point<N>) void append(std::string& out, N number) {
  char digits[64];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  out.append(digits, end);
}

}  // namespace detail

// Concatenates strings, characters, numbers, and whatever has an append(std::string&, ...) beside its type.
template <class... Parts>
std::string str(const Parts&... parts) {
  using detail::append;
  std::string out;
  (append(out, parts), ...);
  return out;
}

template <class... Parts>
[[noreturn]] void fail(ErrorCode code, const Parts&... parts) {
  throw Error(code, str(parts...));
}

// Throws Error(code) with the concatenated parts unless `ok`. The text is only built on failure.
template <class... Parts>
void require(bool ok, ErrorCode code, const Parts&... parts) {
  if (!ok) [[unlikely]] {
    fail(code, parts...);
  }
}

template <class First, class... Parts>
requires(!std::same_as<First, ErrorCode>) void require(bool ok, const First& first, const Parts&... parts) {
  require(ok, ErrorCode::kInvalidArgument, first, parts...);
}

}  // namespace mixtral
