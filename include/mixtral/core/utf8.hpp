// UTF-8, as strict as Unicode asks: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <string_view>

namespace mixtral {

inline constexpr int kUtf8Invalid = 0;  // the first byte belongs to no character
inline constexpr int kUtf8Cut = -1;     // a character begins here, its last bytes are missing
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

// Bytes of the character at the front of `text` (1 to 4), or kUtf8Invalid, or kUtf8Cut. `text` is not empty.
inline int utf8_char_length(std::string_view text) noexcept {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return kUtf8Invalid;
  const int length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // Overlong forms, surrogates and too large values all show in the second byte.
  int low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  int high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (std::size_t i = 1; i < static_cast<std::size_t>(length); ++i) {
    if (i == text.size()) return kUtf8Cut;
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < low || byte > high) return kUtf8Invalid;
    low = 0x80;
    high = 0xBF;
  }
  return length;
}

inline bool is_utf8(std::string_view text) noexcept {
  while (!text.empty()) {
    const int length = utf8_char_length(text);
    if (length <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(length));
  }
  return true;
}

}  // namespace mixtral
