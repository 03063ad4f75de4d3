// Seeded damage to the bytes of a file.
#pragma once

#include <algorithm>
#include <random>
#include <string>

namespace mixtral::test {

// One to four random changes: bits flipped, bytes overwritten, removed, inserted or repeated, the end cut off.
inline std::string mutate(std::string bytes, std::mt19937& random) {
  const auto below = [&](std::size_t n) { return n == 0 ? 0 : random() % n; };
  for (std::size_t n = 1 + below(4); n > 0; --n) {
    // Half of the changes go to the last 200 bytes, where options follow the long list of pieces.
    const std::size_t tail = std::min<std::size_t>(200, bytes.size());
    const std::size_t at = below(2) == 0 ? below(bytes.size()) : bytes.size() - tail + below(tail);
    const std::size_t length = std::min(1 + below(16), bytes.size() - at);
    switch (below(6)) {
      case 0:
        if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        break;
      case 1:
        if (at < bytes.size()) bytes[at] = static_cast<char>(below(256));
        break;
      case 2: bytes.erase(at, length); break;
      case 3: bytes.insert(at, length, static_cast<char>(below(256))); break;
      case 4: bytes.insert(at, bytes.substr(below(bytes.size()), length)); break;
      default:
        if (below(8) == 0) bytes.resize(at);
        break;
    }
  }
  return bytes;
}

}  // namespace mixtral::test
