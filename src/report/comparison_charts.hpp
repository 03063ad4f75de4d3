// The pictures of the page on a comparison: <figure> elements.
#pragma once

#include <span>
#include <string>

#include "mixtral/runtime/comparison.hpp"
#include "report/comparison_setup.hpp"

namespace mixtral::report {

// Shares of the same set and the same first expert, layer by layer.
std::string stability_figure(const ComparisonSetup& setup, const ComparisonResult& result);
// Mean and 90th percentile of KL over the positions of the context.
std::string position_figure(std::span<const ComparedPosition> positions);
// Router margins of the choices that differ and of those that do not.
std::string margin_figure(const Comparison& comparison, const ComparisonResult& result);
// How many positions have which KL.
std::string kl_figure(std::span<const ComparedPosition> positions, const ComparisonResult& result);

}  // namespace mixtral::report
