// A product with packed weights for a few tokens, alone: its share of the DRAM probe, and how much longer than for one
// token it takes. Rounds go through all numbers of tokens in turn, each between two probes; the medians of the rounds
// count. Prints one JSON object.  Arguments: rounds (7), instruction set (the best).
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>

#include "mixtral/core/thread_executor.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/ops/linear.hpp"
#include "mixtral/runtime/available_threads.hpp"
#include "probes/probes.hpp"
#include "probes/statistics.hpp"
#include "support/packed.hpp"

namespace {

using namespace mixtral;
using json = nlohmann::ordered_json;

constexpr Index kTokens[] = {1, 2, 4, 8, 16};
constexpr std::size_t kCounts = std::size(kTokens);

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// One pass over all weights; probes of before and after.
struct Sample {
  double seconds = 0, before = 0, after = 0;
  bool steady() const { return probes::steady(before, after); }
};

struct Bench {
  const KernelTable& table;
  Executor& executor;
  Arena arena{probes::kDramBytes};
  Scratch scratch = {};

  double pass(std::span<const MatrixView> weights, Index tokens, const std::vector<float>& x, std::vector<float>& y) {
    const Index rows = weights[0].rows, cols = weights[0].cols;
    const double begin = seconds();
    executor.run_team([&](Executor& team) {  // as Forward does
      for (const MatrixView& w : weights) {
        ops::linear({table, team, scratch}, w, TensorView<const float, 2>(x.data(), Shape<2>{{tokens, cols}}),
                    TensorView<float, 2>(y.data(), Shape<2>{{tokens, rows}}));
      }
    });
    return seconds() - begin;
  }

  // [rounds][kCounts]
  std::vector<std::vector<Sample>> rounds(std::span<const MatrixView> weights, int n) {
    const auto x = bench::random_floats(kTokens[kCounts - 1] * weights[0].cols);
    std::vector<float> y(static_cast<std::size_t>(kTokens[kCounts - 1] * weights[0].rows));
    std::vector<std::vector<Sample>> out;
    for (int r = 0; r <= n; ++r) {  // the first is a warm-up
      std::vector<Sample> round(kCounts);
      double probe = probes::dram_read_rate(arena, executor);
      for (std::size_t i = 0; i < kCounts; ++i) {
        round[i].before = probe;
        round[i].seconds = pass(weights, kTokens[i], x, y);
        round[i].after = probe = probes::dram_read_rate(arena, executor);
      }
      if (r > 0) out.push_back(std::move(round));
    }
    return out;
  }
};

// The time for kTokens[i] over that for one token, of rounds whose probes all agreed between the two.
std::vector<double> time_ratios(const std::vector<std::vector<Sample>>& rounds, std::size_t i) {
  std::vector<double> ratios;
  for (const auto& round : rounds) {
    if (round[0].steady() && round[i].steady()) ratios.push_back(round[i].seconds / round[0].seconds);
  }
  return ratios;
}

json tokens_json(const std::vector<std::vector<Sample>>& rounds, std::size_t i, double bytes) {
  std::vector<double> rates, shares;
  json raw = json::array();
  for (const auto& round : rounds) {
    const Sample& s = round[i];
    raw.push_back({{"seconds", s.seconds}, {"probe_before", 1e-9 * s.before}, {"probe_after", 1e-9 * s.after}});
    if (!s.steady()) continue;
    rates.push_back(1e-9 * bytes / s.seconds);
    shares.push_back(100 * bytes / s.seconds / (0.5 * (s.before + s.after)));
  }
  return {{"tokens", kTokens[i]},
          {"runs", shares.size()},
          {"dropped", rounds.size() - shares.size()},
          {"GB/s", probes::spread(rates)},
          {"percent_of_ceiling", probes::spread(shares)},
          {"times_one_token", probes::spread(time_ratios(rounds, i))},
          {"rounds", std::move(raw)}};
}

json shape_json(Bench& bench, DType dtype, bench::WeightShape shape, int n_rounds) {
  const OpContext ctx{bench.table, bench.executor, bench.scratch};
  const auto weights = bench::packed_matrices(bench.arena, dtype, shape);
  bench::fill_packed(ctx, weights);
  const double bytes = static_cast<double>(weights.size()) * static_cast<double>(weights[0].bytes());
  const auto rounds = bench.rounds(weights, n_rounds);
  json out = {{"weights", name_of(dtype)}, {"shape", shape.name}, {"rows", shape.rows}, {"cols", shape.cols}};
  out["bytes"] = bytes;
  out["by_tokens"] = json::array();
  for (std::size_t i = 0; i < kCounts; ++i) out["by_tokens"].push_back(tokens_json(rounds, i, bytes));
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 7;
    const KernelTable table = make_table(argc > 2 ? isa_from_name(argv[2]) : best_isa());
    ThreadExecutor executor(available_threads());
    Bench bench{table, executor};
    json out = {{"machine", probes::machine_name()},
                {"isa", table.name},
                {"threads", executor.n_workers()},
                {"ceiling_of", "DRAM read"},
                {"products", json::array()}};
    for (const DType dtype : {DType::kP4, DType::kP8}) {
      for (const auto& shape : bench::kMixtralShapes)
        out["products"].push_back(shape_json(bench, dtype, shape, rounds));
    }
    std::cout << out.dump(1) << "\n";
  } catch (const std::exception& e) {
    std::cerr << "gemv_bench: " << e.what() << "\n";
    return 1;
  }
}
