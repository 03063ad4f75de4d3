// What a checkpoint holds and what running it takes, as JSON and as tables for a terminal.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "mixtral/io/checkpoint.hpp"

namespace mixtral::report {

// Beside the weights.
struct MemoryNeeds {
  DType kv_dtype = DType::kBF16;
  Index kv_bytes_per_1024_tokens = 0, kv_bytes_at_max_positions = 0;
  Index working_bytes = 0;  // while a prompt is read
};

// What came out of looking through all weights.
struct WeightCheck {
  struct Wrong {
    std::string name, problem;  // of a tensor
  };
  double seconds = 0;
  std::vector<Wrong> wrong;
};

nlohmann::ordered_json checkpoint_json(const Checkpoint& checkpoint, const MemoryNeeds& memory,
                                       const std::optional<WeightCheck>& check);
// Of what checkpoint_json() gave.
std::string checkpoint_text(const nlohmann::ordered_json& result);

// "all weights are sound", "2 tensors are not sound".
std::string verdict(std::size_t n_wrong);

}  // namespace mixtral::report
