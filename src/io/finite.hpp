// Numbers that are infinite or no numbers, in weights of any format.
#pragma once

#include <string>

#include "mixtral/core/matrix_view.hpp"
#include "mixtral/model/config.hpp"
#include "mixtral/model/weights.hpp"

namespace mixtral {

struct NonFinite {
  Index count = 0;
  Index row = 0, col = 0;  // of the first in row-major order; of packed weights, where those of the scale begin
  float value = 0;         // the first
};

// Among the weights of rows [begin, end), of packed weights among their scales. `begin` is a multiple of row_step().
NonFinite find_non_finite(const MatrixView& w, Index begin, Index end) noexcept;

// Where all other weights only make noise, these decide: an expert whose row of the router is NaN would never be
// chosen, and nobody would notice. Throws Error(kBadFormat) that begins with `where` and names the tensor, the element
// and its value. The first looks at routers and norms alone.
void require_finite_routing(const TensorSlot& slot, const MatrixView& w, const std::string& where);
void require_finite_routing(const Weights& weights, const ModelConfig& config, const std::string& where);

}  // namespace mixtral
