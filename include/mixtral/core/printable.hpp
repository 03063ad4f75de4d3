// Text that a stranger may have written, made fit for a terminal and for a line of a log.
#pragma once

#include <string>
#include <string_view>

#include "mixtral/core/utf8.hpp"

namespace mixtral {

namespace detail {

// Steers a terminal, or turns the direction of the text behind it. `character` is one of UTF-8.
inline bool steers(std::string_view character) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(character[i]); };
  if (character.size() == 1) return byte(0) < 0x20 || byte(0) == 0x7F;
  if (character.size() == 2) return byte(0) == 0xC2 && byte(1) < 0xA0;  // U+0080 to U+009F
  if (character.size() != 3 || byte(0) != 0xE2) return false;
  return (byte(1) == 0x80 && byte(2) >= 0xAA && byte(2) <= 0xAE) ||  // U+202A to U+202E
         (byte(1) == 0x81 && byte(2) >= 0xA6 && byte(2) <= 0xA9);    // U+2066 to U+2069
}

}  // namespace detail

// `text` with every byte written out, as \x1b, that belongs to a control character (below U+0020 but for those of
// `keep`, U+007F to U+009F), to one that turns the direction of writing (U+202A to U+202E, U+2066 to U+2069), or to no
// character of UTF-8 at all. What it returns is UTF-8, and the same if it is given to it again.
inline std::string printable(std::string_view text, std::string_view keep = {}) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const int length = utf8_char_length(text);
    const std::string_view character = text.substr(0, length > 0 ? static_cast<std::size_t>(length) : 1);
    text.remove_prefix(character.size());
    const bool plain = length > 0 && (!detail::steers(character) || keep.find(character) != keep.npos);
    if (plain) {
      out += character;
      continue;
    }
    for (const char c : character) {
      const auto byte = static_cast<unsigned char>(c);
      out += "\\x";
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    }
  }
  return out;
}

}  // namespace mixtral
