#include "io/checksum.hpp"

#include <new>

#define XXH_INLINE_ALL  // nothing to link, and no symbol that a host's own copy could meet
#include <xxhash.h>

namespace mixtral {

std::uint64_t checksum(std::span<const std::byte> bytes) noexcept { return XXH3_64bits(bytes.data(), bytes.size()); }

Checksum::Checksum() : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
  XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_));
}

Checksum::~Checksum() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }

void Checksum::add(std::span<const std::byte> bytes) noexcept {
  XXH3_64bits_update(static_cast<XXH3_state_t*>(state_), bytes.data(), bytes.size());
}

std::uint64_t Checksum::value() const noexcept { return XXH3_64bits_digest(static_cast<XXH3_state_t*>(state_)); }

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
