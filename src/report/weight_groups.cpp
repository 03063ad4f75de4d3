#include "report/weight_groups.hpp"

#include <algorithm>

#include "mixtral/core/error.hpp"

namespace mixtral::report {

std::vector<WeightGroup> weight_groups(const Model& model) {
  std::vector<WeightGroup> groups;
  for_each_tensor(model.config, [&](const TensorSlot& slot, const Shape<2>& shape) {
    const MatrixView& w = model.weights.at(slot);
    const TensorGroup kind = group_of(slot.kind);
    auto group = std::find_if(groups.begin(), groups.end(), [&](const WeightGroup& g) { return g.group == kind; });
    if (group == groups.end()) group = groups.insert(groups.end(), {kind, std::string(name_of(w.dtype))});
    // As a whole word: F16 is part of BF16.
    if (str(", ", group->formats, ",").find(str(" ", name_of(w.dtype), ",")) == std::string::npos) {
      group->formats += str(", ", name_of(w.dtype));
    }
    group->parameters += shape.count();
    group->bytes += w.bytes();
  });
  return groups;
}

}  // namespace mixtral::report
