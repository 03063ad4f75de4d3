#include "probes/statistics.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

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
