// The figures of a bench as JSON, and as a table for a terminal.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "report/bench_figures.hpp"

namespace mixtral::report {

// Every repetition with its raw numbers; medians and ranges of those that count, null if there is none.
nlohmann::ordered_json bench_json(const BenchSubject& subject, const BenchPlan& plan, const BenchFigures& measured,
                                  Index probe_bytes);
// Of what bench_json() gave.
std::string bench_text(const nlohmann::ordered_json& result);

}  // namespace mixtral::report
