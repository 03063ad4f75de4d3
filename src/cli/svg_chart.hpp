// Small pictures in SVG for a page that brings its own style: colours come from the classes "s0" and "s1".
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace mixtral::cli {

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

// An <svg> element. All texts are escaped here.
std::string svg_of(const Chart& chart);
// The names of the series with their colours, as a paragraph; nothing for a single series.
std::string legend_of(const Chart& chart);

}  // namespace mixtral::cli
