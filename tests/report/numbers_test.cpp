#include "report/numbers.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace mixtral;

TEST_CASE("numbers have the decimals that were asked for, however large they are") {
  CHECK(report::fixed(0.125, 2) == "0.12");
  CHECK(report::fixed(-2.5, 0) == "-2");
  CHECK(report::fixed(1e300, 2).size() == 301 + 3);
  CHECK(report::fixed(std::numeric_limits<double>::lowest(), 12).size() == 1 + 309 + 13);
  CHECK(report::padded("1.5", 6) == "   1.5");
  CHECK(report::padded("1234.5", 3) == "1234.5");
}

TEST_CASE("whole numbers have commas, and things their plural") {
  CHECK(report::thousands(0) == "0");
  CHECK(report::thousands(999) == "999");
  CHECK(report::thousands(1234567) == "1,234,567");
  CHECK(report::thousands(-123456) == "-123,456");
  CHECK(report::counted(1, "position") == "1 position");
  CHECK(report::counted(1234, "position") == "1,234 positions");
}

TEST_CASE("significant digits are counted after rounding") {
  CHECK(report::significant(0) == "0");
  CHECK(report::significant(0.01234) == "0.0123");
  CHECK(report::significant(123.4) == "123");
  CHECK(report::significant(9.996) == "10.0");
  CHECK(report::significant(1.234e-5) == "1.23 \u00D7 10\u207B\u2075");
  CHECK(report::significant(1e300) == "1.00 \u00D7 10\u00B3\u2070\u2070");
}

TEST_CASE("a percentage is 100 or 0 only if it is all or nothing") {
  CHECK(report::percent(0, 3) == "0");
  CHECK(report::percent(1, 3) == "33.33");
  CHECK(report::percent(3, 3) == "100");
  CHECK(report::percent(0, 0) == "100");
  CHECK(report::percent(999'999, 1'000'000) == "99.9999");
  CHECK(report::percent(1, 1'000'000) == "0.0001");
}

TEST_CASE("changes have a sign, and bytes a unit") {
  CHECK(report::change(1) == "0");
  CHECK(report::change(1.0261) == "+2.61");
  CHECK(report::change(0.5) == "\u221250.00");
  CHECK(report::mebibytes(Index{3} << 19) == "1.5 MiB");
  CHECK(report::mebibytes(Index{5} << 29) == "2.50 GiB");
}
