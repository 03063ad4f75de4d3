// XXH3 with 64 bits, the sums of packed files: https://github.com/Cyan4973/xxHash
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace mixtral {

std::uint64_t checksum(std::span<const std::byte> bytes) noexcept;

// The same of bytes that come in pieces.
class Checksum {
 public:
  Checksum();  // throws std::bad_alloc
  ~Checksum();
  Checksum(const Checksum&) = delete;
  Checksum& operator=(const Checksum&) = delete;
  void add(std::span<const std::byte> bytes) noexcept;
  std::uint64_t value() const noexcept;

 private:
  void* state_;
};

// Sixteen digits, so that the place of a sum is known before the sum.
std::string sum_text(std::uint64_t sum);
// Nothing unless it is sixteen small hexadecimal digits.
std::optional<std::uint64_t> parse_sum(std::string_view digits) noexcept;

}  // namespace mixtral
