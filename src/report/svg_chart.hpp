// Small charts in SVG. They take their style from the page (report/html.hpp): colours are those of the classes "s0" and
// "s1".
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace mixtral::report {

struct Tick {
  double at = 0;
  std::string text;
};

struct Axis {
  std::string label;
  double low = 0, high = 1;
  std::vector<Tick> ticks;
};

// Ticks at round numbers inside [low, high]; about `n`. `text` writes one.
std::vector<Tick> round_ticks(double low, double high, int n, const std::function<std::string(double)>& text);
// The distance of such ticks: 1, 2 or 5 times a power of ten.
double round_step(double span, int n);

// One value over [begin, end) of the x axis: a bar, or a point in the middle.
struct Mark {
  double begin = 0, end = 0, value = 0;
  std::string tip;  // shown when pointed at
};

enum class MarkStyle { kBars, kPoints, kLine };  // a line has points, too

struct Series {
  std::string name;
  MarkStyle style = MarkStyle::kLine;
  std::vector<Mark> marks;  // of finite values
};

// A vertical line with a name.
struct Rule {
  double at = 0;
  std::string text;
};

struct Chart {
  std::string description;  // for those who cannot see it
  Axis x, y;
  std::vector<Series> series;  // at most two
  std::vector<Rule> rules;
};

// A <figure> with the chart's <svg>, and with the names of the series and their colours if there are several. The
// chart's texts are escaped here; `title` and `caption` are well-formed XML already.
std::string figure(const std::string& title, const std::string& caption, const Chart& chart);
// In its place where there is nothing to draw.
std::string figure_without_chart(const std::string& title, const std::string& reason);

}  // namespace mixtral::report
