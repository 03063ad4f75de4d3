// How well a model predicted, and which experts it used, as JSON and as tables for a terminal.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "mixtral/runtime/evaluator.hpp"

namespace mixtral::report {

// n_read: tokens that the model read.
nlohmann::json evaluation_json(const Evaluator& evaluator, Index n_read);
// Of what evaluation_json() gave.
std::string evaluation_text(const nlohmann::json& result);

}  // namespace mixtral::report
