// The figures of a comparison as JSON, and as tables for a terminal.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "mixtral/runtime/comparison.hpp"
#include "report/comparison_setup.hpp"

namespace mixtral::report {

// Names of files stand in it as they are, so they may be no UTF-8.
nlohmann::ordered_json comparison_json(const ComparisonSetup& setup, const Comparison& comparison,
                                       const ComparisonResult& result);
std::string comparison_text(const ComparisonSetup& setup, const ComparisonResult& result);

}  // namespace mixtral::report
