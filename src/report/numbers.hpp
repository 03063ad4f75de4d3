// Numbers as people read them, for tables and pages.
#pragma once

#include <string>
#include <string_view>

#include "mixtral/core/types.hpp"

namespace mixtral::report {

// Right-aligned in `width` columns.
std::string padded(std::string text, std::size_t width);
// With so many decimals.
std::string fixed(double value, int digits);

// Behind a number on a page: no line ends between them.
inline constexpr std::string_view kPercent = "\u00A0%";

// 1234567 -> "1,234,567".
std::string thousands(Index value);
// "1 position", "1,234 positions".
std::string counted(Index n, std::string_view thing);
// "0.0123", "123"; very small numbers as "1.23 x 10^-5" in typographic signs. Zero is "0".
std::string significant(double value, int digits = 3);
// Percent of the whole, without the sign: two decimals, or as many as it takes not to round to 100 or 0 what is
// neither.
std::string percent(Index part, Index whole);
// A ratio as a change in percent, without the percent sign: "+2.61", "-0.02" (with a real minus), "0".
std::string change(double ratio);
// "15.2 MiB".
std::string mebibytes(Index bytes);
// "10" with a raised exponent.
std::string power_of_ten(int exponent);

}  // namespace mixtral::report
