// Who chooses each row's experts.
#pragma once

#include <span>

#include "mixtral/core/row_info.hpp"
#include "mixtral/moe/router.hpp"

namespace mixtral::moe {

// Turns a layer's router logits into choices, row by row. A row has up to k of them, in places of its own choice: an
// unused place holds kNoExpert, and a row without any keeps its residual. Weights are used as they are. Called on the
// thread that runs the step. Where results must not depend on batches, a row's choices depend on that row alone.
class RoutePolicy {
 public:
  virtual ~RoutePolicy() = default;
  // rows [n]; out.logits [n, n_experts] are the router's, out.experts and out.weights [n, k] are to be written. What it
  // throws ends the step.
  virtual void choose(const OpContext& ctx, Index layer, std::span<const RowInfo> rows, const RouterOutput& out) = 0;
};

// The model's own choice: the k largest logits, softmax over them (Mixtral of Experts, arXiv:2401.04088, section 2.1).
class TopK final : public RoutePolicy {
 public:
  void choose(const OpContext& ctx, Index, std::span<const RowInfo>, const RouterOutput& out) override {
    select_experts(ctx, {}, out);
  }
};

}  // namespace mixtral::moe
