#include "mixtral/core/utf8.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace mixtral;

TEST_CASE("Every code point in its shortest form is one character") {
  for (int c = 0; c <= 0x10FFFF; ++c) {
    std::string text;
    const auto put = [&](int byte) { text.push_back(static_cast<char>(byte)); };
    if (c < 0x80) {
      put(c);
    } else if (c < 0x800) {
      put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
      put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
    } else {
      put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
    }
    const bool surrogate = c >= 0xD800 && c < 0xE000;
    if (utf8_char_length(text) != (surrogate ? kUtf8Invalid : static_cast<int>(text.size()))) FAIL_CHECK(c);
    for (std::size_t n = 1; n < text.size() && !surrogate; ++n) {
      if (utf8_char_length(std::string_view(text).substr(0, n)) != kUtf8Cut) FAIL_CHECK(c);
    }
  }
}

TEST_CASE("Overlong forms, surrogates, too large values and stray bytes are not UTF-8") {
  for (const char* text : {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                           "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xC3(", "\xE4\xBD(", "\xF0\x9F\x98("}) {
    CHECK(utf8_char_length(text) == kUtf8Invalid);
    CHECK_FALSE(is_utf8(text));
  }
  CHECK_FALSE(is_utf8("a\xE4\xBD"));
  CHECK(is_utf8(""));
  CHECK(is_utf8("a\xE4\xBD\xA0z"));
}
