#include "report/routing_tables.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "mixtral/core/error.hpp"
#include "report/numbers.hpp"

namespace mixtral::report {

nlohmann::json routes_json(const RoutingStats& stats) {
  nlohmann::json layers = nlohmann::json::array();
  for (Index l = 0; l < stats.n_layers(); ++l) {
    layers.push_back(nlohmann::json::array());
    for (Index e = 0; e < stats.n_experts(); ++e) layers.back().push_back(stats.count(l, e));
  }
  return layers;
}

std::string routes_text(const RoutingStats& stats) {
  std::string out = "\nshare of the tokens' choices per expert (%)\nlayer";
  for (Index e = 0; e < stats.n_experts(); ++e) out += padded(str(e), 6);
  for (Index l = 0; l < stats.n_layers(); ++l) {
    out += str("\n", padded(str(l), 5));
    const auto total = static_cast<double>(std::max<Index>(stats.total(l), 1));
    for (Index e = 0; e < stats.n_experts(); ++e) {
      out += padded(fixed(100 * static_cast<double>(stats.count(l, e)) / total, 1), 6);
    }
  }
  return out + "\n";
}

}  // namespace mixtral::report
