#include "report/html.hpp"

#include <doctest/doctest.h>

#include "support/program.hpp"
#include "support/xml.hpp"

using namespace mixtral;

TEST_CASE("escaped text stands in XML, whatever its bytes are") {
  CHECK(report::escaped("<a href=\"x\">&'") == "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
  CHECK(report::escaped("\u00E9\t\n\U0001F600") == "\u00E9\t\n\U0001F600");
  CHECK(report::escaped("\x01\x7F\xFF\xC3") == "\uFFFD\uFFFD\uFFFD\uFFFD");
  CHECK(report::escaped("\uFFFE") == "\uFFFD");
  CHECK(report::escaped("").empty());
}

TEST_CASE("a page is well-formed and loads nothing") {
  const std::string page = report::page(report::escaped("a < b"), "<p>text</p>\n");
  CHECK(test::contains(test::checked_xml(page), "text"));
  CHECK(test::contains(page, "<title>a &lt; b</title>"));
  CHECK(page.ends_with("<body>\n<p>text</p>\n</body>\n</html>\n"));
  for (const char* never : {"<script", "http", "src=", "url(", "@import", "href="}) {
    CHECK_FALSE(test::contains(page, never));
  }
}
