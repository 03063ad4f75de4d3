// The sparse mixture-of-experts layer: plan, run, ordered combine.
#pragma once

#include <span>

#include "mixtral/moe/dispatch_plan.hpp"
#include "mixtral/moe/expert_backend.hpp"
#include "mixtral/moe/router.hpp"

namespace mixtral::moe {

// x[t] = (x[t] + w0 * y0) + w1 * y1 ..., in the order of the token's choices, so that the result does not
// depend on which expert ran first.  x [n, dim], outputs [choices, dim] grouped by expert, weights [n, k]
inline void combine(const OpContext& ctx, const DispatchPlan& plan, TensorView<const float, 2> outputs,
                    TensorView<const float, 2> weights, TensorView<float, 2> x) {
  const Index k = weights.dim(1);
  ctx.executor.parallel_for(x.dim(0), [&](Index t, int) {
    for (Index i = 0; i < k; ++i) {
      const Index row = plan.row_of(t, i);
      if (row >= 0) ctx.table.axpy(weights.row(t)[i], outputs.row(row), x.dim(1), x.row(t));
    }
  });
}

// One layer of a step: whose rows, who computes them.
struct LayerCall {
  Index layer;
  std::span<const RowInfo> rows;  // [n]
  Index n_experts;
  ExpertBackend& experts;
  const ExpertHook* hook = nullptr;
  const CancelFlag& cancel;
};

// x += the weighted outputs of the chosen experts on h: plan, run, combine.  h [n, dim] (normed), x [n, dim] (residual
// stream). Throws Error(kInvalidArgument) on shapes that do not fit or an expert that does not exist, and what the
// backend or the hook throws; x is then unchanged.
inline void moe_layer(const OpContext& ctx, const LayerCall& call, const RouterOutput& routing, DispatchPlan& plan,
                      TensorView<const float, 2> h, TensorView<float, 2> x) {
  ops::require_same_shape("moe_layer", "h", h, "x", x);
  require(routing.experts.dim(0) == h.dim(0) && routing.weights.shape() == routing.experts.shape() &&
              (routing.versions.data() == nullptr || routing.versions.shape() == routing.experts.shape()),
          "moe_layer: experts ", routing.experts.shape(), ", weights ", routing.weights.shape(), ", versions ",
          routing.versions.shape(), " for ", h.dim(0), " rows");
  plan.build(routing.experts, call.n_experts, routing.versions);
  const ScratchScope scope(ctx.scratch);
  const auto outputs = ctx.scratch.matrix<float>(plan.n_rows(), h.dim(1));
  call.experts.run(ctx, {.layer = call.layer,
                         .rows = call.rows,
                         .plan = plan,
                         .h = h,
                         .outputs = outputs,
                         .hook = call.hook,
                         .cancel = call.cancel});
  combine(ctx, plan, outputs, routing.weights, x);
}

// The same with one layer's experts in memory, whosever rows they are.
inline void moe_layer(const OpContext& ctx, std::span<const ExpertWeights> experts, const RouterOutput& routing,
                      DispatchPlan& plan, TensorView<const float, 2> h, TensorView<float, 2> x,
                      const ExpertHook* hook = nullptr) {
  ExpertsInMemory store(experts);
  LocalExperts local(store);
  const CancelFlag never;
  moe_layer(ctx,
            {.layer = -1,
             .rows = {},
             .n_experts = static_cast<Index>(experts.size()),
             .experts = local,
             .hook = hook,
             .cancel = never},
            routing, plan, h, x);
}

}  // namespace mixtral::moe
