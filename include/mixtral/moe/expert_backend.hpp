// Who computes the experts' outputs.
#pragma once

#include <algorithm>
#include <span>

#include "mixtral/core/function_ref.hpp"
#include "mixtral/core/row_info.hpp"
#include "mixtral/moe/dispatch_plan.hpp"
#include "mixtral/moe/expert_ffn.hpp"

namespace mixtral::moe {

// One expert and its rows of a step, for whoever looks in. Valid during the call only.
struct ExpertRows {
  Index expert;
  TensorView<const float, 2> h;       // [n, dim]: the inputs of all tokens
  std::span<const Index> tokens;      // rows of h that this expert has, rising
  TensorView<const float, 2> hidden;  // [tokens, hidden_dim]: what w2 gets
};
using ExpertHook = FunctionRef<void(const ExpertRows&)>;

namespace detail {

// Row r becomes row plan.tokens()[r] of the input, in the forms that the experts need.
inline ops::detail::LinearInput gather(const OpContext& ctx, const DispatchPlan& plan, TensorView<const float, 2> h,
                                       const ops::detail::InputForms& forms) {
  const ops::QuantizedRows bytes = forms.bytes ? ops::quantize(ctx, h) : ops::QuantizedRows{};
  ops::detail::LinearInput rows;
  const Index n = plan.n_rows();
  const auto token_of = [&](Index r) { return plan.tokens()[static_cast<std::size_t>(r)]; };
  const auto for_rows = [&](auto copy) {
    ops::for_blocks(ctx, n, 32, [&](Index begin, Index end, int) {
      for (Index r = begin; r < end; ++r) copy(r, token_of(r));
    });
  };
  if (forms.floats) {
    const auto out = ctx.scratch.matrix<float>(n, h.dim(1));
    for_rows([&](Index r, Index token) { std::copy_n(h.row(token), h.dim(1), out.row(r)); });
    rows.x = out;
  }
  if (forms.pairs) rows.pairs = ops::round_rows(ctx, n, h.dim(1), [&](Index r) { return h.row(token_of(r)); });
  if (forms.bytes) {
    rows.q = ops::take_quantized(ctx.scratch, n, h.dim(1));
    for_rows([&](Index r, Index token) { ops::copy_row(bytes, token, h.dim(1), r, rows.q); });
  }
  return rows;
}

}  // namespace detail

// Runs every expert of the plan on its tokens.  h [n, dim], outputs [plan.n_rows(), dim], grouped by expert
// Throws Error(kInvalidArgument) on shapes that do not fit, and what the hook throws.
inline void run_experts(const OpContext& ctx, std::span<const ExpertWeights> experts, const DispatchPlan& plan,
                        TensorView<const float, 2> h, TensorView<float, 2> outputs, const ExpertHook* hook = nullptr) {
  require(outputs.dim(0) == plan.n_rows() && outputs.dim(1) == h.dim(1) &&
              static_cast<Index>(experts.size()) == plan.n_experts(),
          "run_experts: h is ", shape_text(h.shape()), ", outputs ", shape_text(outputs.shape()), ", for ",
          experts.size(), " experts and a plan of ", plan.n_rows(), " rows and ", plan.n_experts(), " experts");
  for (const Index token : plan.tokens()) require(token < h.dim(0), "run_experts: token ", token, " of ", h.dim(0));
  const ScratchScope scope(ctx.scratch);
  auto* batches = ctx.scratch.take<detail::ExpertBatch>(plan.n_experts());
  Index n_used = 0;
  ops::detail::InputForms forms;
  for (Index e = 0; e < plan.n_experts(); ++e) {
    const Index begin = plan.offset(e), count = plan.rows_of(e);
    if (count == 0) continue;
    const ExpertWeights& expert = experts[static_cast<std::size_t>(e)];
    detail::require_expert(expert, h.dim(1));
    for (const MatrixView* w : {&expert.w1, &expert.w3}) forms.add(ctx.table, *w);
    detail::ExpertBatch& batch = *new (&batches[n_used++]) detail::ExpertBatch{};
    batch.weights = &expert;
    batch.y = outputs.rows(begin, count);
    detail::take_hidden(ctx, batch, count);
  }
  const ops::detail::LinearInput rows = detail::gather(ctx, plan, h, forms);
  Index begin = 0;  // batches follow each other in the order of the plan
  for (detail::ExpertBatch& batch : std::span(batches, static_cast<std::size_t>(n_used))) {
    batch.x = rows.rows(begin, batch.y.dim(0));
    begin += batch.y.dim(0);
  }
  detail::run_batches(ctx, {batches, static_cast<std::size_t>(n_used)});
  if (hook == nullptr) return;
  for (Index e = 0, i = 0; e < plan.n_experts(); ++e) {
    if (plan.rows_of(e) > 0) (*hook)({e, h, plan.tokens_of(e), batches[i++].hidden});
  }
}

// Rows and plan in, one output row per choice out. Whatever stands behind it (experts in memory, on disk, on another
// machine) computes row r of the outputs from row plan.tokens()[r] of h alone, so that results depend on no batch.
class ExpertBackend {
 public:
  virtual ~ExpertBackend() = default;
  // rows [n], h [n, dim] (normed), outputs [plan.n_rows(), dim]: grouped by expert as the plan is. The hook, if there
  // is one, sees each expert that has rows. Called on the thread that runs the step; what it throws ends the step.
  virtual void run(const OpContext& ctx, Index layer, std::span<const RowInfo> rows, const DispatchPlan& plan,
                   TensorView<const float, 2> h, TensorView<float, 2> outputs, const ExpertHook* hook) = 0;
};

// One layer's experts in memory, on the step's workers.
class LocalExperts final : public ExpertBackend {
 public:
  explicit LocalExperts(std::span<const ExpertWeights> experts) noexcept : experts_(experts) {}
  void run(const OpContext& ctx, Index, std::span<const RowInfo>, const DispatchPlan& plan,
           TensorView<const float, 2> h, TensorView<float, 2> outputs, const ExpertHook* hook) override {
    run_experts(ctx, experts_, plan, h, outputs, hook);
  }

 private:
  std::span<const ExpertWeights> experts_;
};

}  // namespace mixtral::moe
