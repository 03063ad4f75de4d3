#include "report/comparison_charts.hpp"

#include <algorithm>
#include <cmath>

#include "mixtral/core/error.hpp"
#include "report/numbers.hpp"
#include "report/svg_chart.hpp"

namespace mixtral::report {
namespace {

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
  if (exponent < -2) {
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

// Bins over powers of ten, four to each, and one for what is smaller or 0.
struct LogBins {
  static constexpr int kPerDecade = 4, kMostDecades = 8;

  int low = 0, high = 0;  // 10^low to 10^high
  bool smaller = false;   // whether there is anything smaller

  // Holds all of `values`, of which one at least is above 0; at most kMostDecades below the largest.
  explicit LogBins(std::span<const double> values) {
    high = static_cast<int>(std::floor(std::log10(*std::max_element(values.begin(), values.end())))) + 1;
    low = high - 2;
    for (const double value : values) {
      if (value > 0)
        low = std::min(low, std::max(high - kMostDecades, static_cast<int>(std::floor(std::log10(value)))));
    }
    smaller = std::any_of(values.begin(), values.end(), [&](double value) { return bin_of(value) < 0; });
  }

  std::size_t size() const noexcept { return static_cast<std::size_t>((high - low) * kPerDecade); }
  // -1: smaller.
  Index bin_of(double value) const {
    if (value <= 0) return -1;
    const double bin = std::floor((std::log10(value) - low) * kPerDecade);
    return static_cast<Index>(std::clamp(bin, -1.0, static_cast<double>(size()) - 1));
  }
  double begin_of(Index bin) const { return low + static_cast<double>(bin) / kPerDecade; }

  Axis axis(const std::string& label) const {
    Axis out{label, low - (smaller ? 0.75 : 0), static_cast<double>(high), {}};
    if (smaller) out.ticks.push_back({low - 0.5, "less"});
    for (int decade = low; decade <= high; ++decade) {
      out.ticks.push_back({static_cast<double>(decade), power_of_ten(decade)});
    }
    return out;
  }

  // One bar for each bin; `height` and `tip` get a bin's count, `tip` also its range in words.
  std::vector<Mark> bars(std::span<const double> values, const std::function<double(Index)>& height,
                         const std::function<std::string(Index, const std::string&)>& tip) const {
    Index n_smaller = 0;
    std::vector<Index> counts(size());
    for (const double value : values) {
      const Index bin = bin_of(value);
      ++(bin < 0 ? n_smaller : counts[static_cast<std::size_t>(bin)]);
    }
    std::vector<Mark> out;
    if (smaller) {
      out.push_back(
          {low - 0.625, low - 0.375, height(n_smaller), tip(n_smaller, str("less than ", power_of_ten(low)))});
    }
    for (Index bin = 0; bin < static_cast<Index>(size()); ++bin) {
      const Index count = counts[static_cast<std::size_t>(bin)];
      const double begin = begin_of(bin), end = begin_of(bin + 1);
      const std::string range = str(significant(std::pow(10.0, begin)), " to ", significant(std::pow(10.0, end)));
      out.push_back({begin, end, height(count), tip(count, range)});
    }
    return out;
  }
};

double highest_of(std::span<const Series> series) {
  double out = 0;
  for (const Series& s : series) {
    for (const Mark& mark : s.marks) out = std::max(out, mark.value);
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
           str("layer ", l, ": ", series.name, " for ", percent(count, g.n), kPercent, " of ", counted(g.n, "token"))});
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
  if (largest == 0) return figure_without_chart(title, "It is 0 at every position: nothing to draw.");
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
  const Distribution &differ = result.gating.margin_where_differing, &agree = result.gating.margin_where_same;
  std::vector<double> agreeing, differing, all;
  for (std::size_t l = 0; l < result.layers.size(); ++l) {
    for (const ComparedChoice& choice : comparison.choices(static_cast<Index>(l))) {
      (choice.same_set ? agreeing : differing).push_back(static_cast<double>(choice.margin));
      all.push_back(static_cast<double>(choice.margin));
    }
  }
  if (std::max(differ.max, agree.max) == 0)
    return figure_without_chart("Router margins", "All margins are 0: nothing to draw.");
  const LogBins bins(all);
  Chart chart;
  chart.description = "Distribution of router margins where the set of experts agrees and where it differs";
  const auto add = [&](const char* name, const std::vector<double>& values) {
    if (values.empty()) return;
    const auto share = [&](Index count) {
      return 100 * static_cast<double>(count) / static_cast<double>(values.size());
    };
    chart.series.push_back({str("sets that ", name), MarkStyle::kBars,
                            bins.bars(values, share, [&](Index count, const std::string& range) {
                              return str("margin ", range, ": ", counted(count, "choice"), ", ", fixed(share(count), 1),
                                         kPercent, " of those that ", name);
                            })});
  };
  add("agree", agreeing);
  add("differ", differing);
  chart.y = axis_from_0(chart.series.size() == 1 ? "share of the sets" : "share of the sets of each colour", "%",
                        highest_of(chart.series))
                .axis;
  chart.x = bins.axis("router margin of the reference (logarithmic)");
  if (differing.empty()) {
    return figure("Router margins",
                  "None differ: every set of experts is the same. These are the margins of all of them.", chart);
  }
  std::string caption =
      str("Median margin where the set differs (", counted(differ.n, "choice"), "): ", significant(differ.median));
  if (agree.n > 0) {
    caption += str("; where it agrees (", counted(agree.n, "choice"), "): ", significant(agree.median));
  }
  const bool near_ties = agree.n > 0 && differ.median < agree.median / 4;
  return figure(near_ties ? "Router margins: what changes are near ties" : "Router margins", caption + ".", chart);
}

std::string kl_figure(std::span<const ComparedPosition> positions, const ComparisonResult& result) {
  const char* title = "How large the KL divergence is";
  if (result.kl.max == 0) return figure_without_chart(title, "It is 0 at every position: nothing to draw.");
  std::vector<double> values;
  for (const ComparedPosition& p : positions) values.push_back(p.kl);
  const LogBins bins(values);
  Chart chart;
  chart.description = "Histogram of the KL divergence of all positions, on a logarithmic axis";
  const auto count_itself = [](Index count) { return static_cast<double>(count); };
  chart.series = {
      {"positions", MarkStyle::kBars, bins.bars(values, count_itself, [](Index count, const std::string& range) {
         return str("KL ", range, " nats: ", counted(count, "position"));
       })}};
  chart.x = bins.axis("KL divergence, nats (logarithmic)");
  const double highest = highest_of(chart.series), step = std::max(1.0, round_step(highest, 4));
  chart.y = {"positions", 0, step * std::ceil(highest / step), {}};
  chart.y.ticks = round_ticks(0, chart.y.high, static_cast<int>(chart.y.high / step), whole);
  const auto rule = [&](double value, const char* name) {
    if (bins.bin_of(value) >= 0) chart.rules.push_back({std::log10(value), name});
  };
  rule(result.kl.mean, "mean");
  rule(result.kl.p99, "p99");
  return figure(title,
                str("Four bars to a power of ten, ", counted(result.n_targets, "position"),
                    " in all; dashed: the mean and the 99th percentile (p99)."),
                chart);
}

}  // namespace mixtral::report
