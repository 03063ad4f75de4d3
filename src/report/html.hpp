// The frame of a page, and text that may stand in it.
#pragma once

#include <string>
#include <string_view>

namespace mixtral::report {

// For text and attributes of HTML and SVG, as well-formed XML: bytes that are not UTF-8 and control characters become
// U+FFFD, as they would stand in no XML document.
std::string escaped(std::string_view text);

// A whole document with the style of all pages: one file, no script, nothing loaded from elsewhere. `title` and `body`
// are well-formed XML already.
std::string page(const std::string& title, const std::string& body);

}  // namespace mixtral::report
