#include "probes/statistics.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>

using namespace mixtral;
using nlohmann::ordered_json;

TEST_CASE("the median of an even number of values is between the middle two") {
  CHECK(probes::spread({3, 1, 2}).median == 2);
  CHECK(probes::spread({4, 1, 2, 8}).median == 3);
  CHECK(probes::spread({4, 1, 2, 8}).min == 1);
  CHECK(probes::spread({4, 1, 2, 8}).max == 8);
  CHECK(probes::spread({7}).median == 7);
}

TEST_CASE("as JSON a spread has three members, that of nothing is null") {
  CHECK(ordered_json(probes::spread({5, 3})).dump() == R"({"median":4.0,"min":3.0,"max":5.0})");
  CHECK(ordered_json(probes::spread({})).is_null());
}

TEST_CASE("a machine is steady if its probes differ by a tenth at most, in either direction") {
  CHECK(probes::steady(10, 11));
  CHECK(probes::steady(11, 10));
  CHECK_FALSE(probes::steady(10, 11.1));
  CHECK_FALSE(probes::steady(11.1, 10));
  CHECK(probes::steady(0, 0));  // no probe
}

TEST_CASE("a measurement's mode is that of nine in ten of its samples, otherwise mixed") {
  using enum probes::UnitMode;
  CHECK(probes::mode_of({9, 10, 9.5}, 10) == kFast);
  CHECK(probes::mode_of({2.5, 2.6}, 10) == kSlow);
  CHECK(probes::mode_of({10, 2.5, 10}, 10) == kMixed);
  CHECK(probes::mode_of({10, 10, 10, 10, 10, 10, 10, 10, 10, 2.5}, 10) == kFast);
  CHECK(probes::mode_of({2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 10}, 10) == kSlow);
  CHECK(probes::name_of(kMixed) == std::string("mixed"));
}
