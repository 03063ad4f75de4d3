// The page that `mixtral compare --report` writes: one file, no script, nothing loaded from elsewhere.
#pragma once

#include <string>
#include <vector>

#include "cli/weight_groups.hpp"
#include "mixtral/runtime/comparison.hpp"

namespace mixtral::cli {

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

// Well-formed XML, in UTF-8.
std::string comparison_page(const ComparisonSetup& setup, const Comparison& comparison, const ComparisonResult& result);

}  // namespace mixtral::cli
