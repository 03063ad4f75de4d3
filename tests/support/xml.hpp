// Whether what is written as XML is XML.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace mixtral::test {

// Pages and parts of them as XML: every tag is closed, every & is an entity. Gives back its text without the tags.
inline std::string checked_xml(const std::string& page) {
  std::vector<std::string> open;
  std::string text;
  for (std::size_t at = 0; at < page.size();) {
    if (page[at] == '&') CHECK(page.substr(at, 7).find(';') != std::string::npos);
    if (page[at] != '<') {
      text += page[at++];
      continue;
    }
    const std::size_t end = page.find('>', at);
    REQUIRE(end != std::string::npos);
    const std::string tag = page.substr(at + 1, end - at - 1);
    CHECK(std::count(tag.begin(), tag.end(), '"') % 2 == 0);
    CHECK(tag.find('<') == std::string::npos);
    const std::string name = tag.substr(0, tag.find(' '));
    if (name.starts_with("/")) {
      REQUIRE_FALSE(open.empty());
      CHECK(open.back() == name.substr(1));
      open.pop_back();
    } else if (!tag.ends_with("/") && name != "!DOCTYPE") {
      open.push_back(name);
    }
    at = end + 1;
  }
  CHECK(open.empty());
  return text;
}

}  // namespace mixtral::test
