#include "io/checksum.hpp"

#define XXH_INLINE_ALL  // nothing to link, and no symbol that a host's own copy could meet
#include <xxhash.h>

namespace mixtral {

std::uint64_t checksum(std::span<const std::byte> bytes) noexcept { return XXH3_64bits(bytes.data(), bytes.size()); }

std::string sum_text(std::uint64_t sum) {
  std::string text(16, '0');
  for (std::size_t i = 16; i-- > 0; sum >>= 4) text[i] = "0123456789abcdef"[sum & 15];
  return text;
}

std::optional<std::uint64_t> parse_sum(std::string_view digits) noexcept {
  if (digits.size() != 16) return std::nullopt;
  std::uint64_t sum = 0;
  for (const char c : digits) {
    const bool number = c >= '0' && c <= '9', letter = c >= 'a' && c <= 'f';
    if (!number && !letter) return std::nullopt;
    sum = sum << 4 | static_cast<std::uint64_t>(number ? c - '0' : c - 'a' + 10);
  }
  return sum;
}

}  // namespace mixtral
