#include "support/golden.hpp"

#include <cmath>
#include <fstream>
#include <limits>

namespace mixtral::test {

nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream in(path);
  return nlohmann::json::parse(in);
}

Tolerance tolerance(const nlohmann::json& manifest, std::string_view name) {
  const auto& t = manifest.at("tolerances").at(std::string(name));
  return {t.value("atol", 0.0), t.value("rtol", 0.0)};
}

double excess(std::span<const float> got, std::span<const float> want, Tolerance tolerance) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (got.size() != want.size()) return kInfinity;
  double worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    const double allowed = tolerance.atol + tolerance.rtol * std::abs(static_cast<double>(want[i]));
    if (!(difference <= allowed)) worst = std::max(worst, std::isnan(difference) ? kInfinity : difference / allowed);
  }
  return worst;
}

}  // namespace mixtral::test
