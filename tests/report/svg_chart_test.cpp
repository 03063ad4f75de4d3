#include "report/svg_chart.hpp"

#include <doctest/doctest.h>

#include "mixtral/core/error.hpp"
#include "support/program.hpp"
#include "support/xml.hpp"

using namespace mixtral;

namespace {

std::string tick_text(double value) { return str(static_cast<int>(value)); }

}  // namespace

TEST_CASE("ticks stand at round numbers inside the range") {
  CHECK(report::round_step(10, 4) == 5);
  CHECK(report::round_step(0.7, 4) == doctest::Approx(0.2));
  const std::vector<report::Tick> ticks = report::round_ticks(-3, 41, 4, tick_text);
  REQUIRE(ticks.size() == 3);
  CHECK(ticks.front().text == "0");
  CHECK(ticks.back().at == 40);
}

TEST_CASE("a chart is well-formed XML with all its texts escaped") {
  report::Chart chart;
  chart.description = "what \"it\" shows";
  chart.x = {"x & more", 0, 4, report::round_ticks(0, 4, 4, tick_text)};
  chart.y = {"y < 1", 0, 1, {}};
  chart.series = {{"bars", report::MarkStyle::kBars, {{0, 1, 0.5, "<first>"}, {1, 2, 0, "second"}}}};
  chart.rules = {{0.5, "mean"}, {3.5, "p99"}};
  const std::string one = report::figure("Title", "Caption.", chart);
  CHECK(test::contains(test::checked_xml(one), "Title Caption."));
  for (const char* part : {"x &amp; more", "y &lt; 1", "&quot;it&quot;", "&lt;first&gt;", "mean", "p99"}) {
    CHECK_MESSAGE(test::contains(one, part), part);
  }
  CHECK_FALSE(test::contains(one, "legend"));  // one colour needs no names

  chart.series.push_back({"a > b", report::MarkStyle::kLine, {{0, 1, 0.1, "t"}, {1, 2, 7, "above the axis"}}});
  const std::string two = report::figure("Title", "Caption.", chart);
  test::checked_xml(two);
  CHECK(test::contains(two, "<p class=\"legend\">"));
  CHECK(test::contains(two, "a &gt; b"));
  CHECK(test::contains(two, "<polyline"));
}

TEST_CASE("a figure without a chart says why") {
  const std::string none = report::figure_without_chart("Title", "Nothing to draw.");
  CHECK(test::contains(test::checked_xml(none), "Nothing to draw."));
  CHECK_FALSE(test::contains(none, "<svg"));
}
