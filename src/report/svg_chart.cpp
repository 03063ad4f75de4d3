#include "report/svg_chart.hpp"

#include <algorithm>
#include <cmath>

#include "mixtral/core/error.hpp"
#include "report/html.hpp"
#include "report/numbers.hpp"

namespace mixtral::report {
namespace {

// In units of the viewBox; at a usual width of the page one is about one pixel.
constexpr double kWidth = 400, kHeight = 260, kLeft = 46, kRight = 12, kTop = 34, kBottom = 44;

std::string number(double value) { return fixed(value, 1); }

// From the values of a chart to places in its picture.
struct Scale {
  const Axis &x, &y;

  double at_x(double value) const {
    return kLeft + std::clamp((value - x.low) / (x.high - x.low), 0.0, 1.0) * (kWidth - kLeft - kRight);
  }
  double at_y(double value) const {
    return kHeight - kBottom - std::clamp((value - y.low) / (y.high - y.low), 0.0, 1.0) * (kHeight - kTop - kBottom);
  }
};

std::string text_at(double x, double y, const char* style, const std::string& text) {
  return str("<text class=\"", style, "\" x=\"", number(x), "\" y=\"", number(y), "\">", escaped(text), "</text>\n");
}

std::string line(double x1, double y1, double x2, double y2, const char* style) {
  return str("<line class=\"", style, "\" x1=\"", number(x1), "\" y1=\"", number(y1), "\" x2=\"", number(x2),
             "\" y2=\"", number(y2), "\"/>\n");
}

std::string axes(const Scale& scale) {
  const double bottom = kHeight - kBottom, right = kWidth - kRight;
  std::string out;
  for (const Tick& tick : scale.y.ticks) {
    const double y = scale.at_y(tick.at);
    out += line(kLeft, y, right, y, "grid") + text_at(kLeft - 7, y + 4, "end", tick.text);
  }
  for (const Tick& tick : scale.x.ticks) {
    const double x = scale.at_x(tick.at);
    out += line(x, bottom, x, bottom + 4, "axis") + text_at(x, bottom + 18, "middle", tick.text);
  }
  out += line(kLeft, bottom, right, bottom, "axis");
  out += text_at(4, 14, "label", scale.y.label);
  return out + text_at((kLeft + right) / 2, kHeight - 6, "label middle", scale.x.label);
}

// Side by side where several series have bars.
std::string bars(const Scale& scale, const Series& series, std::size_t lane, std::size_t n_lanes) {
  std::string out;
  const double bottom = kHeight - kBottom;
  for (const Mark& mark : series.marks) {
    const double begin = scale.at_x(mark.begin), end = scale.at_x(mark.end), gap = std::min(1.5, (end - begin) * 0.12);
    const double width = (end - begin - 2 * gap) / static_cast<double>(n_lanes);
    double top = scale.at_y(mark.value);
    if (mark.value > scale.y.low) top = std::min(top, bottom - 1);  // what is there is seen
    out += str("<rect x=\"", number(begin + gap + width * static_cast<double>(lane)), "\" y=\"", number(top),
               "\" width=\"", number(width), "\" height=\"", number(bottom - top), "\"><title>", escaped(mark.tip),
               "</title></rect>\n");
  }
  return out;
}

std::string points(const Scale& scale, const Series& series, bool square) {
  std::string path, out;
  for (const Mark& mark : series.marks) {
    const double x = scale.at_x((mark.begin + mark.end) / 2), y = scale.at_y(mark.value);
    path += str(path.empty() ? "" : " ", number(x), ",", number(y));
    const std::string tip = str("<title>", escaped(mark.tip), "</title>");
    // The empty circle around it is easier to point at.
    out += str("<circle class=\"halo\" cx=\"", number(x), "\" cy=\"", number(y), "\" r=\"10\">", tip, "</circle>");
    if (square) {
      out +=
          str("<rect x=\"", number(x - 3), "\" y=\"", number(y - 3), "\" width=\"6\" height=\"6\">", tip, "</rect>\n");
    } else {
      out += str("<circle cx=\"", number(x), "\" cy=\"", number(y), "\" r=\"3.5\">", tip, "</circle>\n");
    }
  }
  if (series.style == MarkStyle::kLine && series.marks.size() > 1) {
    out = str("<polyline points=\"", path, "\"/>\n", out);
  }
  return out;
}

// The first name stands before its line and the last one behind, so that they do not meet; at an edge, where both must
// stand on one side, lines that are close share their names.
std::string rules(const Scale& scale, std::vector<Rule> list) {
  constexpr double kRoom = 45;  // of a name
  std::sort(list.begin(), list.end(), [](const Rule& a, const Rule& b) { return a.at < b.at; });
  std::string out, names;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const double x = scale.at_x(list[i].at), top = kTop - 6;
    out += line(x, top, x, kHeight - kBottom, "rule");
    names += str(names.empty() ? "" : ", ", list[i].text);
    const bool last = i + 1 == list.size(), at_right = scale.at_x(list.back().at) > kWidth - kRoom;
    if (!last && scale.at_x(list[i + 1].at) - x < kRoom && (at_right || x < kLeft + kRoom)) continue;
    const bool before = at_right || (!last && x > kLeft + kRoom);
    out += text_at(before ? x - 3 : x + 3, top, before ? "end" : "start", names);
    names.clear();
  }
  return out;
}

// An <svg> element.
std::string svg_of(const Chart& chart) {
  const Scale scale{chart.x, chart.y};
  std::string out = str("<svg viewBox=\"0 0 ", kWidth, " ", kHeight, "\" role=\"img\" aria-label=\"",
                        escaped(chart.description), "\">\n", axes(scale));
  const auto is_bars = [](const Series& s) { return s.style == MarkStyle::kBars; };
  const auto n_lanes = static_cast<std::size_t>(std::count_if(chart.series.begin(), chart.series.end(), is_bars));
  std::size_t lane = 0;
  for (std::size_t i = 0; i < chart.series.size(); ++i) {
    const Series& series = chart.series[i];
    out += str("<g class=\"s", i, "\">\n");
    out += is_bars(series) ? bars(scale, series, lane++, n_lanes) : points(scale, series, i == 1);
    out += "</g>\n";
  }
  return out + rules(scale, chart.rules) + "</svg>\n";
}

// The names of the series with their colours, as a paragraph; nothing for a single series.
std::string legend_of(const Chart& chart) {
  if (chart.series.size() < 2) return "";
  std::string out = "<p class=\"legend\">";
  for (std::size_t i = 0; i < chart.series.size(); ++i) {
    out += str("<span class=\"key s", i, "\">", escaped(chart.series[i].name), "</span> ");
  }
  return out + "</p>\n";
}

}  // namespace

double round_step(double span, int n) {
  const double rough = span / std::max(n, 1), power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

std::vector<Tick> round_ticks(double low, double high, int n, const std::function<std::string(double)>& text) {
  const double step = round_step(high - low, n);
  std::vector<Tick> out;
  // Adding 0 makes -0 a 0.
  for (double i = std::ceil(low / step - 1e-6) + 0.0; i * step <= high + step * 1e-6; ++i) {
    out.push_back({i * step, text(i * step)});
  }
  return out;
}

std::string figure(const std::string& title, const std::string& caption, const Chart& chart) {
  return str("<figure>\n<figcaption><strong>", title, "</strong> ", caption, "</figcaption>\n", legend_of(chart),
             svg_of(chart), "</figure>\n");
}

std::string figure_without_chart(const std::string& title, const std::string& reason) {
  return str("<figure class=\"empty\">\n<figcaption><strong>", title, "</strong> ", reason,
             "</figcaption>\n</figure>\n");
}

}  // namespace mixtral::report
