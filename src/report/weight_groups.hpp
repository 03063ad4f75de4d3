// The weights of a model in groups of tensors that usually share a format.
#pragma once

#include <string>
#include <vector>

#include "mixtral/model/weights.hpp"

namespace mixtral::report {

struct WeightGroup {
  TensorGroup group;
  std::string formats;  // "P4"; "P4, P8" where they differ
  Index parameters = 0, bytes = 0;
};

// Those that the model has, in the order of the forward pass.
std::vector<WeightGroup> weight_groups(const Model& model);

}  // namespace mixtral::report
