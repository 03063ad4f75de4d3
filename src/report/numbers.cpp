#include "report/numbers.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "mixtral/core/error.hpp"

namespace mixtral::report {
namespace {

// As printf writes it, whatever the locale.
std::string written(double value, std::chars_format format, int digits) {
  char text[512];  // the largest double has 309 digits before the point
  return {text, std::to_chars(text, text + sizeof text, value, format, digits).ptr};
}

}  // namespace

std::string padded(std::string text, std::size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + text;
}

std::string fixed(double value, int digits) { return written(value, std::chars_format::fixed, digits); }

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
  const std::string whole = written(value, std::chars_format::scientific, digits - 1);  // rounds: 9.99 may be 10.0
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

}  // namespace mixtral::report
