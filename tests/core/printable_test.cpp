#include "mixtral/core/printable.hpp"

#include <doctest/doctest.h>

using namespace mixtral;

TEST_CASE("printable text stays as it is, in any script") {
  for (const char* text : {"", "a b~", "\\x1b", "\xC3\xA9 \xE2\x96\x81 \xF0\x9F\x98\x80", "\xD7\xA9\xE2\x80\x8F"}) {
    CHECK(printable(text) == text);
  }
  CHECK(printable("\xC2\xA0\xE2\x80\xA9\xE2\x80\xAF\xE2\x81\xA5\xE2\x81\xAA") ==
        "\xC2\xA0\xE2\x80\xA9\xE2\x80\xAF\xE2\x81\xA5\xE2\x81\xAA");  // the neighbours of what is written out
}

TEST_CASE("what a terminal obeys is written out byte by byte") {
  CHECK(printable("\x1B[31mred\x1B]0;title\x07") == "\\x1b[31mred\\x1b]0;title\\x07");
  CHECK(printable(std::string_view("\0\r\n\t\x1F\x7F", 6)) == "\\x00\\x0d\\x0a\\x09\\x1f\\x7f");
  CHECK(printable("\xC2\x80 \xC2\x9F") == "\\xc2\\x80 \\xc2\\x9f");
  for (const char* text : {"\xE2\x80\xAA", "\xE2\x80\xAE", "\xE2\x81\xA6", "\xE2\x81\xA9"}) {
    CHECK(printable(text).starts_with("\\xe2\\x8"));
  }
}

TEST_CASE("bytes that are no UTF-8 are written out, the text around them is kept") {
  CHECK(printable("a\x9B\xC3") == "a\\x9b\\xc3");
  CHECK(printable("\xED\xA0\x80z") == "\\xed\\xa0\\x80z");
}

TEST_CASE("what is to be kept is kept, and a second time changes nothing") {
  const std::string once = printable("a\tb\n\r\x1B", "\n\t");
  CHECK(once == "a\tb\n\\x0d\\x1b");
  CHECK(printable(once, "\n\t") == once);
}
