// Which experts worked, as JSON and as a table for a terminal.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "mixtral/runtime/routing_stats.hpp"

namespace mixtral::report {

// Choices per layer and expert: [n_layers][n_experts].
nlohmann::json routes_json(const RoutingStats& stats);
// Percent of a layer's choices, a row per layer.
std::string routes_text(const RoutingStats& stats);

}  // namespace mixtral::report
