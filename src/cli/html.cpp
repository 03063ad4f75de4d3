#include "cli/html.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "cli/loaded_model.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/utf8.hpp"

namespace mixtral::cli {

std::string escaped(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const int length = std::max(utf8_char_length(text), 1);
    const std::string_view c = text.substr(0, static_cast<std::size_t>(length));
    const bool readable = is_utf8(c) && (static_cast<unsigned char>(c[0]) >= 0x20 || c[0] == '\t' || c[0] == '\n') &&
                          c != "\x7F" && c != "\xEF\xBF\xBE" && c != "\xEF\xBF\xBF";
    if (c == "&") {
      out += "&amp;";
    } else if (c == "<") {
      out += "&lt;";
    } else if (c == ">") {
      out += "&gt;";
    } else if (c == "\"") {
      out += "&quot;";
    } else if (c == "'") {
      out += "&#39;";
    } else {
      out += readable ? c : kReplacementCharacter;
    }
    text.remove_prefix(c.size());
  }
  return out;
}

std::string thousands(Index value) {
  std::string digits = str(value);
  for (auto at = static_cast<Index>(digits.size()) - 3; at > (value < 0 ? 1 : 0); at -= 3) {
    digits.insert(static_cast<std::size_t>(at), 1, ',');
  }
  return digits;
}

std::string counted(Index n, std::string_view thing) { return str(thousands(n), " ", thing, n == 1 ? "" : "s"); }

std::string power_of_ten(int exponent) {
  static constexpr const char* kRaised[] = {"\u2070", "\u00B9", "\u00B2", "\u00B3", "\u2074",
                                            "\u2075", "\u2076", "\u2077", "\u2078", "\u2079"};
  std::string out = str("10", exponent < 0 ? "\u207B" : "");
  for (const char digit : str(std::abs(exponent))) out += kRaised[digit - '0'];
  return out;
}

std::string significant(double value, int digits) {
  if (value == 0) return "0";
  char text[64];
  std::snprintf(text, sizeof text, "%.*e", digits - 1, value);  // rounds before the exponent is known
  const std::string whole = text;
  const std::size_t e = whole.find('e');
  const int exponent = std::atoi(whole.c_str() + e + 1);
  if (exponent < -4 || exponent > 6) return str(whole.substr(0, e), " \u00D7 ", power_of_ten(exponent));
  return fixed(value, std::max(digits - 1 - exponent, 0));
}

std::string percent(Index part, Index whole) {
  if (whole == 0 || part == whole) return "100";
  if (part == 0) return "0";
  const double value = 100 * static_cast<double>(part) / static_cast<double>(whole);
  int digits = 2;
  const auto rounds_away = [&] {
    const std::string text = fixed(value, digits);
    return text.starts_with("100.") || text.find_first_not_of("0.") == std::string::npos;
  };
  while (digits < 12 && rounds_away()) ++digits;
  return fixed(value, digits);
}

std::string change(double ratio) {
  const double value = 100 * (ratio - 1);
  if (value == 0) return "0";
  const double size = std::abs(value);
  return str(value < 0 ? "\u2212" : "+", size < 0.1 ? significant(size, 2) : fixed(size, 2));
}

std::string mebibytes(Index bytes) {
  const double mib = static_cast<double>(bytes) / 0x1p20;
  return mib < 1024 ? fixed(mib, 1) + " MiB" : fixed(mib / 1024, 2) + " GiB";
}

}  // namespace mixtral::cli
