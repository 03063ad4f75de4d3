#include "cli/compare_charts.hpp"

#include <algorithm>
#include <cmath>

#include "cli/html.hpp"
#include "cli/loaded_model.hpp"
#include "cli/svg_chart.hpp"
#include "mixtral/core/error.hpp"

namespace mixtral::cli {
namespace {

std::string figure(const std::string& title, const std::string& caption, const std::string& picture) {
  return str("<figure>\n<figcaption><strong>", title, "</strong> ", caption, "</figcaption>\n", picture, "</figure>\n");
}

std::string figure(const std::string& title, const std::string& caption, const Chart& chart) {
  return figure(title, caption, legend_of(chart) + svg_of(chart));
}

std::string without_picture(const std::string& title, const std::string& reason) {
  return figure(title, "", str("<p class=\"empty\">", reason, "</p>\n"));
}

// Decimals that tell multiples of `step` apart.
int decimals(double step) { return std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9))); }

// From 0 to a round number that is at least `largest` > 0. Values of an axis must be divided by `unit`: small ones
// are written without a power of ten, which goes into the label.
struct RoundAxis {
  Axis axis;
  double unit = 1;
};

RoundAxis axis_from_0(const std::string& label, const std::string& unit_name, double largest) {
  const int exponent = static_cast<int>(std::floor(std::log10(largest)));
  RoundAxis out;
  std::string unit = unit_name;
  if (exponent < -3) {
    out.unit = std::pow(10.0, exponent);
    unit = str(power_of_ten(exponent), " ", unit_name);
  }
  const double high = largest / out.unit, step = round_step(high, 4);
  out.axis = {str(label, ", ", unit), 0, step * std::ceil(high / step - 1e-9), {}};
  out.axis.ticks = round_ticks(0, out.axis.high, 4, [&](double v) { return fixed(v, decimals(step)); });
  return out;
}

std::string whole(double value) { return thousands(std::llround(value)); }

std::string position_text(const PositionBucket& bucket) {
  if (bucket.end - bucket.begin == 1) return str("position ", bucket.begin);
  return str("positions ", bucket.begin, " to ", bucket.end - 1);
}

// Counts of values in bins of equal width from `low` to `high`; those outside go to the first and the last.
std::vector<Index> counts_of(std::span<const double> values, double low, double high, std::size_t n_bins) {
  std::vector<Index> out(n_bins);
  for (const double value : values) {
    const double bin = std::floor((value - low) / (high - low) * static_cast<double>(n_bins));
    ++out[static_cast<std::size_t>(std::clamp(bin, 0.0, static_cast<double>(n_bins - 1)))];
  }
  return out;
}

}  // namespace

std::string stability_figure(const ComparisonSetup& setup, const ComparisonResult& result) {
  const auto n_layers = static_cast<double>(result.layers.size());
  Chart chart;
  chart.description = "Shares of routing decisions that stay, per layer";
  chart.series = {{str("same top-", setup.n_experts_per_tok, " set"), MarkStyle::kLine, {}},
                  {"same first expert", MarkStyle::kLine, {}}};
  double lowest = 1;
  for (std::size_t l = 0; l < result.layers.size(); ++l) {
    const GatingStability& g = result.layers[l];
    const auto add = [&](Series& series, double share, Index count) {
      const double at = static_cast<double>(l);
      series.marks.push_back(
          {at - 0.5, at + 0.5, 100 * share,
           str("layer ", l, ": ", series.name, " for ", percent(count, g.n), " of ", thousands(g.n), " tokens")});
      lowest = std::min(lowest, share);
    };
    add(chart.series[0], g.same_set(), g.n_same_set);
    add(chart.series[1], g.same_first(), g.n_same_first);
  }
  const double step = lowest == 1 ? 0.5 : round_step(100 * (1 - lowest), 4);
  const double low = std::max(0.0, lowest == 1 ? 99.0 : 100 - step * std::ceil(100 * (1 - lowest) / step - 1e-9));
  chart.y = {str("share of tokens, %", low > 0 ? str(" (axis begins at ", fixed(low, decimals(step)), ")") : ""),
             low,
             100,
             {}};
  for (double i = 0; 100 - i * step >= low - step * 1e-6; ++i) {
    chart.y.ticks.push_back({100 - i * step, fixed(100 - i * step, decimals(step))});
  }
  chart.x = {"layer", -0.5, n_layers - 0.5, {}};
  const auto every = static_cast<Index>(std::max(1.0, round_step(n_layers, 12)));
  for (Index l = 0; l < static_cast<Index>(result.layers.size()); l += every) {
    chart.x.ticks.push_back({static_cast<double>(l), str(l)});
  }
  return figure("Gating stability per layer",
                "The share of tokens which the router sends to the same experts as the reference's does.", chart);
}

std::string position_figure(std::span<const ComparedPosition> positions) {
  const char* title = "KL divergence over the context";
  constexpr Index kBuckets = 16;
  std::vector<PositionBucket> buckets = kl_by_position(positions, kBuckets);
  std::erase_if(buckets, [](const PositionBucket& b) { return b.kl.n == 0; });
  double largest = 0;
  for (const PositionBucket& b : buckets) largest = std::max({largest, b.kl.mean, b.kl.p90});
  if (largest == 0)
    return without_picture(title,
                           "The KL divergence is 0 all along the context, or nearly everywhere: nothing to draw.");
  const RoundAxis y = axis_from_0("KL divergence", "nats", largest);
  Chart chart;
  chart.description = "Mean and 90th percentile of the KL divergence over the positions of the context";
  chart.series = {{"mean", MarkStyle::kLine, {}}, {"90th percentile", MarkStyle::kLine, {}}};
  for (const PositionBucket& b : buckets) {
    const std::string where = str(position_text(b), " (", thousands(b.kl.n), " compared): ");
    const auto begin = static_cast<double>(b.begin), end = static_cast<double>(b.end);
    chart.series[0].marks.push_back(
        {begin, end, b.kl.mean / y.unit, str(where, "mean ", significant(b.kl.mean), " nats")});
    chart.series[1].marks.push_back(
        {begin, end, b.kl.p90 / y.unit, str(where, "90th percentile ", significant(b.kl.p90), " nats")});
  }
  chart.y = y.axis;
  const auto end = static_cast<double>(buckets.back().end);
  chart.x = {"position in the context, tokens", 0, end, {}};
  for (const Tick& tick : round_ticks(0, end, 6, whole)) {
    if (tick.at == std::floor(tick.at)) chart.x.ticks.push_back(tick);
  }
  const Index width = buckets[0].end - buckets[0].begin;
  return figure(title,
                width == 1 ? "Each point is one position of the sequences."
                           : str("Each point stands for ", width, " neighbouring positions of the sequences."),
                chart);
}

std::string margin_figure(const Comparison& comparison, const ComparisonResult& result) {
  const char* title = "Router margins: near ties change";
  const GatingStability& g = result.gating;
  std::vector<double> same, differing, all;
  for (std::size_t l = 0; l < result.layers.size(); ++l) {
    for (const ComparedChoice& choice : comparison.choices(static_cast<Index>(l))) {
      (choice.same_set ? same : differing).push_back(static_cast<double>(choice.margin));
      all.push_back(static_cast<double>(choice.margin));
    }
  }
  const double largest = distribution_of(std::move(all)).p99;
  if (largest == 0) return without_picture("Router margins", "All margins are 0: nothing to draw.");
  const double step = round_step(largest, 20);
  const auto n_bins = static_cast<std::size_t>(std::ceil(largest / step - 1e-9));
  const double high = step * static_cast<double>(n_bins);
  Chart chart;
  chart.description = "Distribution of router margins where the set of experts differs and where it agrees";
  double highest = 0;
  const auto add = [&](const char* name, std::span<const double> values) {
    Series series{name, MarkStyle::kBars, {}};
    const std::vector<Index> counts = counts_of(values, 0, high, n_bins);
    for (std::size_t i = 0; i < n_bins; ++i) {
      const double begin = step * static_cast<double>(i),
                   share = 100 * static_cast<double>(counts[i]) / static_cast<double>(values.size());
      const std::string range = i + 1 == n_bins ? str(significant(begin), " or more")
                                                : str(significant(begin), " to ", significant(begin + step));
      series.marks.push_back({begin, begin + step, share,
                              str("margin ", range, ": ", thousands(counts[i]), " choices, ", fixed(share, 1),
                                  " % of those that ", name)});
      highest = std::max(highest, share);
    }
    chart.series.push_back(std::move(series));
  };
  if (!same.empty()) add("agree", same);
  if (!differing.empty()) add("differ", differing);
  chart.y = axis_from_0("share of the group", "%", highest).axis;
  const int digits = decimals(round_step(high, 6));
  chart.x = {"router margin of the reference; the last bar: this and more", 0, high,
             round_ticks(0, high, 6, [&](double v) { return fixed(v, digits); })};
  if (differing.empty())
    return figure("Router margins",
                  "None differ: every set of experts is the same. The margins of all choices:", chart);
  std::string caption = str("Each colour adds up to 100 %: ", thousands(g.margin_where_differing.n),
                            " choices differ, their median margin is ", significant(g.margin_where_differing.median));
  if (!same.empty())
    caption +=
        str("; ", thousands(g.margin_where_same.n), " agree, theirs is ", significant(g.margin_where_same.median));
  return figure(
      same.empty() || g.margin_where_differing.median * 2 >= g.margin_where_same.median ? "Router margins" : title,
      caption + ".", chart);
}

std::string kl_figure(std::span<const ComparedPosition> positions, const ComparisonResult& result) {
  const char* title = "How large the KL divergence is";
  if (result.kl.max == 0)
    return without_picture(title, str("It is 0 at all ", thousands(result.n_targets), " positions: nothing to draw."));
  constexpr int kPerDecade = 4, kDecades = 8;
  const int high = static_cast<int>(std::floor(std::log10(result.kl.max))) + 1;
  int low = high - 2;
  std::vector<double> logs;
  Index below = 0;
  for (const ComparedPosition& p : positions) {
    const double value = p.kl > 0 ? std::log10(p.kl) : high - kDecades - 1;
    if (value < high - kDecades) {
      ++below;
      continue;
    }
    logs.push_back(value);
    low = std::min(low, static_cast<int>(std::floor(value)));
  }
  Chart chart;
  chart.description = "Histogram of the KL divergence of all positions, on a logarithmic axis";
  chart.series = {{"positions", MarkStyle::kBars, {}}};
  const auto n_bins = static_cast<std::size_t>((high - low) * kPerDecade);
  const std::vector<Index> counts = counts_of(logs, low, high, n_bins);
  Index highest = below;
  for (std::size_t i = 0; i < n_bins; ++i) {
    const double begin = low + static_cast<double>(i) / kPerDecade, end = begin + 1.0 / kPerDecade;
    chart.series[0].marks.push_back(
        {begin, end, static_cast<double>(counts[i]),
         str("KL ", significant(std::pow(10.0, begin)), " to ", significant(std::pow(10.0, end)),
             " nats: ", thousands(counts[i]), " positions")});
    highest = std::max(highest, counts[i]);
  }
  chart.x = {"KL divergence, nats (logarithmic)", static_cast<double>(low), static_cast<double>(high), {}};
  if (below > 0) {
    chart.x.low -= 0.75;
    chart.x.ticks.push_back({low - 0.5, "less"});
    chart.series[0].marks.push_back(
        {low - 0.625, low - 0.375, static_cast<double>(below),
         str("KL less than ", power_of_ten(low), " nats, or 0: ", thousands(below), " positions")});
  }
  for (int decade = low; decade <= high; ++decade)
    chart.x.ticks.push_back({static_cast<double>(decade), power_of_ten(decade)});
  const double step = std::max(1.0, round_step(static_cast<double>(highest), 4));
  chart.y = {"positions", 0, step * std::ceil(static_cast<double>(highest) / step), {}};
  chart.y.ticks = round_ticks(0, chart.y.high, static_cast<int>(chart.y.high / step), whole);
  const auto rule = [&](double value, const char* name) {
    if (value > 0 && std::log10(value) >= low) chart.rules.push_back({std::log10(value), name});
  };
  rule(result.kl.mean, "mean");
  rule(result.kl.p99, "99th percentile");
  return figure(
      title,
      str("Positions by their divergence, four bars to a power of ten; ", thousands(result.n_targets), " in all."),
      chart);
}

}  // namespace mixtral::cli
