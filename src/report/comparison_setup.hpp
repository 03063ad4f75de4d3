// What two models were compared on: what page, charts and tables say beside the figures.
#pragma once

#include <string>
#include <vector>

#include "report/weight_groups.hpp"

namespace mixtral::report {

struct ComparedFiles {
  std::string path;
  Index bytes = 0;  // of all weights
  std::vector<WeightGroup> groups;
};

struct ComparedText {
  std::string file;
  Index n_targets = 0;
};

// What was compared, and how.
struct ComparisonSetup {
  ComparedFiles model, reference;
  std::vector<ComparedText> texts;
  Index context = 0;  // tokens of the longest sequence
  Index n_experts = 0, n_experts_per_tok = 0;
  std::string isa;
  int threads = 1;
};

}  // namespace mixtral::report
