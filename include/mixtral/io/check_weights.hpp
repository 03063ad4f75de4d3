// Looks through all weights of a model for numbers that no training leaves behind.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "mixtral/core/executor.hpp"
#include "mixtral/core/types.hpp"
#include "mixtral/model/weights.hpp"

namespace mixtral {

// A tensor with numbers that are infinite or no numbers.
struct NonFiniteTensor {
  std::string name;        // "layers.3.experts.5.w1", slot_name()
  Index count = 0;         // of packed weights: how many of their scales
  Index row = 0, col = 0;  // of the first in row-major order; of packed weights, where those of the scale begin
  float value = 0;         // the first
};

// Reads every weight, of packed ones the scales, all workers at once. Returns the tensors that have such numbers, in
// the order of the forward pass. `progress` gets the bytes that are done and all, from one worker at a time.
std::vector<NonFiniteTensor> check_weights(const Model& model, Executor& executor,
                                           const std::function<void(Index done, Index all)>& progress = {});

}  // namespace mixtral
