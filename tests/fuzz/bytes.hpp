// A fuzzer's bytes as a row of decisions. Behind the last byte everything is 0 or empty.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace mixtral::fuzz {

class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : left_(reinterpret_cast<const char*>(data), size) {}

  bool empty() const noexcept { return left_.empty(); }

  std::uint8_t byte() noexcept {
    if (left_.empty()) return 0;
    const auto byte = static_cast<std::uint8_t>(left_.front());
    left_.remove_prefix(1);
    return byte;
  }
  // In [0, n), n at most 256.
  std::size_t below(std::size_t n) noexcept { return byte() % n; }
  bool chance(std::size_t one_in) noexcept { return below(one_in) == one_in - 1; }
  std::uint64_t number() noexcept {  // 8 bytes
    std::uint64_t number = 0;
    for (int i = 0; i < 8; ++i) number = number << 8 | byte();
    return number;
  }
  template <class Items>
  const auto& pick(const Items& items) noexcept {
    return items[below(std::size(items))];
  }
  // At most `most` bytes, as many as the next one says.
  std::string_view text(std::size_t most) noexcept { return take(below(most + 1)); }
  std::string_view rest() noexcept { return take(left_.size()); }

 private:
  std::string_view take(std::size_t n) noexcept {
    const std::string_view taken = left_.substr(0, n);
    left_.remove_prefix(taken.size());
    return taken;
  }

  std::string_view left_;
};

}  // namespace mixtral::fuzz
