// Finds which of some texts stands at the front of another one, the longest if there are several.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace mixtral {

class PieceMatcher {
 public:
  PieceMatcher() = default;
  // None of `texts` is empty. They are copied.
  explicit PieceMatcher(std::vector<std::string> texts);

  // Bytes of the longest text at the front of `text`, or 0.
  std::size_t match(std::string_view text) const noexcept;

  // The place of the first byte of `text`, from `from` on, with which one of the texts begins, or npos.
  std::size_t next_candidate(std::string_view text, std::size_t from) const noexcept;

  bool empty() const noexcept { return texts_.empty(); }

 private:
  std::vector<std::string> texts_;      // sorted
  std::array<bool, 256> first_byte_{};  // of one of them
};

}  // namespace mixtral
