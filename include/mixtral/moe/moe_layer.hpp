// The sparse mixture-of-experts layer: plan, gather, experts, ordered combine.
#pragma once

#include <algorithm>
#include <span>

#include "mixtral/moe/dispatch_plan.hpp"
#include "mixtral/moe/expert_ffn.hpp"
#include "mixtral/moe/router.hpp"

namespace mixtral::moe {

// Row r of `rows` becomes x[plan.tokens()[r]].  x [n, dim], rows [n * k, dim]
inline void gather(const DispatchPlan& plan, TensorView<const float, 2> x, TensorView<float, 2> rows) {
  for (Index r = 0; r < plan.n_rows(); ++r) {
    std::copy_n(x.row(plan.tokens()[static_cast<std::size_t>(r)]), x.dim(1), rows.row(r));
  }
}

// Runs every expert of the plan on its rows, all experts together in two parallel sections: what one expert
// leaves idle another uses.  rows, outputs [n * k, dim], grouped by expert
// Throws Error(kInvalidArgument) on shapes that do not fit.
inline void run_experts(const OpContext& ctx, std::span<const ExpertWeights> experts, const DispatchPlan& plan,
                        TensorView<const float, 2> rows, TensorView<float, 2> outputs) {
  ops::detail::require_same_shape("run_experts", "rows", rows, "outputs", outputs);
  require(rows.dim(0) == plan.n_rows() && static_cast<Index>(experts.size()) == plan.n_experts(),
          "run_experts: ", rows.dim(0), " rows and ", experts.size(), " experts for a plan of ", plan.n_rows(),
          " rows and ", plan.n_experts(), " experts");
  const ScratchScope scope(ctx.scratch);
  Index hidden_dim = 0, most_rows = 0, most_task_rows = 0, n_used = 0;
  auto* used = ctx.scratch.take<Index>(plan.n_experts());
  for (Index e = 0; e < plan.n_experts(); ++e) {
    if (plan.rows_of(e) == 0) continue;
    const ExpertWeights& expert = experts[static_cast<std::size_t>(e)];
    detail::require_expert(expert, rows.dim(1));
    used[n_used++] = e;
    hidden_dim = std::max(hidden_dim, expert.w1.rows);
    most_rows = std::max(most_rows, plan.rows_of(e));
    most_task_rows = std::max(most_task_rows, ops::detail::rows_per_task(expert.w1));
  }
  const auto hidden = ctx.scratch.matrix<float>(plan.n_rows(), hidden_dim);
  const auto both = ctx.scratch.matrix<float>(ctx.executor.n_workers(), 2 * most_rows * most_task_rows);

  // Tasks of all used experts in a row; `pick` finds whose task i is.
  const auto for_all = [&](auto matrix_of, auto run) {
    Index n_tasks = 0;
    for (Index u = 0; u < n_used; ++u)
      n_tasks += ops::detail::count_tasks(matrix_of(experts[static_cast<std::size_t>(used[u])]));
    ctx.executor.parallel_for(n_tasks, [&](Index i, int worker) {
      Index u = 0;
      for (;; ++u) {
        const Index own = ops::detail::count_tasks(matrix_of(experts[static_cast<std::size_t>(used[u])]));
        if (i < own) break;
        i -= own;
      }
      const Index e = used[u], begin = plan.offset(e), count = plan.rows_of(e);
      run(experts[static_cast<std::size_t>(e)], begin, count, i, worker);
    });
  };
  for_all([](const ExpertWeights& w) { return w.w1; },
          [&](const ExpertWeights& expert, Index begin, Index count, Index i, int worker) {
            const TensorView<float, 2> own(hidden.row(begin), Shape<2>{{count, expert.w1.rows}}, hidden_dim);
            detail::gate_up_task(ctx.table, expert, rows.rows(begin, count), own, both.row(worker), i);
          });
  for_all([](const ExpertWeights& w) { return w.w2; },
          [&](const ExpertWeights& expert, Index begin, Index count, Index i, int) {
            const TensorView<float, 2> own(hidden.row(begin), Shape<2>{{count, expert.w1.rows}}, hidden_dim);
            ops::detail::linear_task(ctx.table, expert.w2, own, outputs.rows(begin, count), i);
          });
}

// x[t] = (x[t] + w0 * y0) + w1 * y1 ..., in the order of the token's choices, so that the result does not
// depend on which expert ran first.  x [n, dim], outputs [n * k, dim] grouped by expert, weights [n, k]
inline void combine(const OpContext& ctx, const DispatchPlan& plan, TensorView<const float, 2> outputs,
                    TensorView<const float, 2> weights, TensorView<float, 2> x) {
  const Index k = weights.dim(1);
  ctx.executor.parallel_for(x.dim(0), [&](Index t, int) {
    for (Index i = 0; i < k; ++i) {
      ctx.table.axpy(weights.row(t)[i], outputs.row(plan.row_of(t, i, k)), x.dim(1), x.row(t));
    }
  });
}

// x += the weighted outputs of the chosen experts on h.  h [n, dim] (normed), x [n, dim] (residual stream)
// Throws Error(kInvalidArgument) on shapes that do not fit or an expert that does not exist; x is then unchanged.
inline void moe_layer(const OpContext& ctx, std::span<const ExpertWeights> experts, const RouterOutput& routing,
                      DispatchPlan& plan, TensorView<const float, 2> h, TensorView<float, 2> x) {
  ops::detail::require_same_shape("moe_layer", "h", h, "x", x);
  require(routing.experts.dim(0) == h.dim(0) && routing.weights.shape() == routing.experts.shape(),
          "moe_layer: experts ", shape_text(routing.experts.shape()), ", weights ", shape_text(routing.weights.shape()),
          " for ", h.dim(0), " rows");
  plan.build(routing.experts, static_cast<Index>(experts.size()));
  const ScratchScope scope(ctx.scratch);
  const auto rows = ctx.scratch.matrix<float>(plan.n_rows(), h.dim(1));
  const auto outputs = ctx.scratch.matrix<float>(plan.n_rows(), h.dim(1));
  gather(plan, h, rows);
  run_experts(ctx, experts, plan, rows, outputs);
  combine(ctx, plan, outputs, routing.weights, x);
}

}  // namespace mixtral::moe
