// Random weights of a model's true shapes: for measuring without a checkpoint.
#pragma once

#include <string_view>
#include <vector>

#include "mixtral/core/executor.hpp"
#include "mixtral/model/weights.hpp"

namespace mixtral {

// The name of the one shape there is.
inline constexpr const char* kSyntheticModel = "mixtral-8x7b";

// That one with n_layers layers; 0: as many as it has (32). Throws Error(kInvalidArgument).
ModelConfig synthetic_config(std::string_view name, Index n_layers = 0);

// bf16 weights, nearly Gaussian with a standard deviation of 0.02; norms are 1. A row depends on its matrix and number
// alone, so every machine and number of workers gives the same. A source for pack_model() and pack_in_memory(): views
// are valid until the next call for a slot of another expert, or of any slot that belongs to none.
class SyntheticWeights {
 public:
  explicit SyntheticWeights(Executor& executor) : executor_(executor) {}
  MatrixView operator()(const TensorSlot& slot, const Shape<2>& shape);

 private:
  Executor& executor_;
  std::vector<bf16> buffers_[3];  // w1, w2, w3 of one expert; the first also for all else
};

}  // namespace mixtral
