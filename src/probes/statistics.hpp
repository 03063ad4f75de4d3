// What is said of repeated measurements: their median and range, and which of them count.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace mixtral::probes {

// Whether the machine was equally fast before and after: two rates of one probe that differ by at most 10 %.
constexpr bool steady(double before, double after) noexcept {
  return std::max(before, after) <= 1.1 * std::min(before, after);
}

// Which of a matrix unit's two speeds, a factor of four apart, a measurement saw: by samples of its rate before, during
// and after.
enum class UnitMode { kFast, kSlow, kMixed };
constexpr const char* name_of(UnitMode mode) noexcept {
  return mode == UnitMode::kFast ? "fast" : mode == UnitMode::kSlow ? "slow" : "mixed";
}
// fastest: of all samples of the run
inline UnitMode mode_of(const std::vector<double>& samples, double fastest) noexcept {
  const auto fast = std::count_if(samples.begin(), samples.end(), [&](double rate) { return rate > 0.6 * fastest; });
  const auto n = static_cast<std::ptrdiff_t>(samples.size());
  return 10 * fast >= 9 * n ? UnitMode::kFast : 10 * fast <= n ? UnitMode::kSlow : UnitMode::kMixed;
}

struct Spread {
  std::size_t n = 0;
  double median = 0, min = 0, max = 0;  // of nothing: 0
};

inline Spread spread(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return {n, 0.5 * (values[(n - 1) / 2] + values[n / 2]), values.front(), values.back()};
}

// For nlohmann's JSON, which finds this by its name; null of nothing.
template <class Json>
void to_json(Json& json, const Spread& s) {
  if (s.n > 0) {
    json = Json{{"median", s.median}, {"min", s.min}, {"max", s.max}};
  } else {
    json = nullptr;
  }
}

}  // namespace mixtral::probes
