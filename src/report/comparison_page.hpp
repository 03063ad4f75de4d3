// The page on how far a model is from a reference.
#pragma once

#include <string>

#include "mixtral/runtime/comparison.hpp"
#include "report/comparison_setup.hpp"

namespace mixtral::report {

// A whole document (report/html.hpp), in UTF-8.
std::string comparison_page(const ComparisonSetup& setup, const Comparison& comparison, const ComparisonResult& result);

}  // namespace mixtral::report
