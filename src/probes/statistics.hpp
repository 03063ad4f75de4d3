// What is said of repeated measurements: their median and range, and which of them count.
#pragma once

#include <algorithm>
#include <vector>

namespace mixtral::probes {

// Whether the machine was equally fast before and after: two rates of one probe that differ by at most 10 %.
constexpr bool steady(double before, double after) noexcept {
  return std::max(before, after) <= 1.1 * std::min(before, after);
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
