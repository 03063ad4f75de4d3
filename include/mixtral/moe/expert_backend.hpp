// Who computes the experts' outputs.
#pragma once

#include <algorithm>
#include <new>
#include <span>

#include "mixtral/core/cancel_flag.hpp"
#include "mixtral/core/function_ref.hpp"
#include "mixtral/core/row_info.hpp"
#include "mixtral/moe/dispatch_plan.hpp"
#include "mixtral/moe/expert_ffn.hpp"
#include "mixtral/moe/expert_store.hpp"

namespace mixtral::moe {

// One expert and its rows of a step, for whoever looks in. Valid during the call only.
struct ExpertRows {
  Index expert;
  TensorView<const float, 2> h;       // [n, dim]: the inputs of all tokens
  std::span<const Index> tokens;      // rows of h that this expert has, rising
  TensorView<const float, 2> hidden;  // [tokens, hidden_dim]: what w2 gets
  ExpertVersion version = kCurrentVersion;
};
using ExpertHook = FunctionRef<void(const ExpertRows&)>;

// The experts' part of one layer of a step.
struct ExpertWork {
  Index layer;
  std::span<const RowInfo> rows;  // [n]; none: nobody has said whose they are
  const DispatchPlan& plan;
  TensorView<const float, 2> h;      // [n, dim], normed
  TensorView<float, 2> outputs;      // [plan.n_rows(), dim], grouped as the plan is: to be written
  const ExpertHook* hook = nullptr;  // sees each expert that has rows, if it is there
  const CancelFlag& cancel;          // asked by who waits
};

// Rows and plan in, one output row per choice out. Whatever stands behind it (experts in memory, on disk, on another
// machine) computes row r of the outputs from row plan.tokens()[r] of h alone, so that results depend on no batch.
class ExpertBackend {
 public:
  virtual ~ExpertBackend() = default;
  // Called on the thread that runs the step; what it throws ends the step.
  virtual void run(const OpContext& ctx, const ExpertWork& work) = 0;
};

namespace detail {

inline void require_work(const ExpertWork& w) {
  require(w.outputs.dim(0) == w.plan.n_rows() && w.outputs.dim(1) == w.h.dim(1), "run_experts: h is ", w.h.shape(),
          ", outputs ", w.outputs.shape(), ", for a plan of ", w.plan.n_rows(), " rows and ", w.plan.n_experts(),
          " experts");
  for (const Index token : w.plan.tokens())
    require(token < w.h.dim(0), "run_experts: token ", token, " of ", w.h.dim(0));
}

// The plan's rows of an expert.
inline const DispatchPlan::Group& group_of(const DispatchPlan& plan, const ExpertKey& key) noexcept {
  const auto groups = plan.groups();
  return *std::lower_bound(groups.begin(), groups.end(), key,
                           [](const DispatchPlan::Group& g, const ExpertKey& k) { return g.key < k; });
}

// Takes what a store gave out of the wanted keys, which keep their order. Returns how many are left.
inline Index strike(Index layer, std::span<ExpertKey> wanted, std::span<const LeasedExpert> given) {
  require(!given.empty(), ErrorCode::kInternal, "layer ", layer, ": the expert store gave none of ", wanted.size());
  auto end = wanted.end();
  for (auto expert = given.rbegin(); expert != given.rend(); ++expert) {  // from behind: usually all, in this order
    const auto& [key, weights] = *expert;
    require(weights != nullptr, ErrorCode::kInternal, "layer ", layer, ": the expert store gave expert ", key.expert,
            ", version ", key.version, ", without weights");
    const auto found = std::lower_bound(wanted.begin(), end, key);
    require(found != end && *found == key, ErrorCode::kInternal, "layer ", layer, ": the expert store gave expert ",
            key.expert, ", version ", key.version, ", for which nobody waits");
    end = std::move(found + 1, end, found);
  }
  return end - wanted.begin();
}

// Runs some experts of the plan. h: the rows in all forms that experts have needed so far.
inline void run_leased(const OpContext& ctx, const ExpertWork& work, std::span<const LeasedExpert> experts,
                       ops::ProductInput& h) {
  const auto n = static_cast<Index>(experts.size());
  auto* batches = ctx.scratch.take<ExpertBatch>(n);
  ops::InputForms forms;
  Index n_rows = 0;
  for (Index i = 0; i < n; ++i) {
    const LeasedExpert& expert = experts[static_cast<std::size_t>(i)];
    require_expert(*expert.weights, work.h.dim(1));
    const DispatchPlan::Group& group = group_of(work.plan, expert.key);
    ExpertBatch& batch =
        *new (&batches[i]) ExpertBatch(ctx.table, ctx.executor.n_workers(), *expert.weights, group.count);
    batch.layer = work.layer;
    batch.key = expert.key;
    batch.y = work.outputs.rows(group.begin, group.count);
    add_forms(batch, forms);
    n_rows += group.count;
  }
  if (forms.has(ops::InputForm::kBytes) && h.bytes.q == nullptr) h.bytes = ops::quantize(ctx, work.h);
  const ScratchScope scope(ctx.scratch);
  const std::span<Index> from(ctx.scratch.take<Index>(n_rows), static_cast<std::size_t>(n_rows));
  Index begin = 0;
  for (ExpertBatch& batch : std::span(batches, static_cast<std::size_t>(n))) {
    const auto tokens = work.plan.tokens_of(group_of(work.plan, batch.key));
    std::copy(tokens.begin(), tokens.end(), from.begin() + begin);
    begin += batch.y.dim(0);
    take_hidden(ctx, batch);
  }
  const ops::ProductInput rows = ops::gather_input(ctx, h, from, forms);
  begin = 0;
  for (ExpertBatch& batch : std::span(batches, static_cast<std::size_t>(n))) {
    batch.x = rows.rows(begin, batch.y.dim(0));
    begin += batch.y.dim(0);
  }
  run_batches(ctx, {batches, static_cast<std::size_t>(n)});
  if (work.hook == nullptr) return;
  for (const ExpertBatch& batch : std::span(batches, static_cast<std::size_t>(n))) {
    const auto tokens = work.plan.tokens_of(group_of(work.plan, batch.key));
    (*work.hook)({batch.key.expert, work.h, tokens, batch.hidden, batch.key.version});
  }
}

}  // namespace detail

// Experts of a store, on the step's workers: those that are there first are computed first, while the store brings the
// others.
class LocalExperts final : public ExpertBackend {
 public:
  // `store` must outlive it.
  explicit LocalExperts(ExpertStore& store) noexcept : store_(store) {}

  // Throws Error(kInvalidArgument) on shapes that do not fit, and what store, hook and cancel throw.
  void run(const OpContext& ctx, const ExpertWork& work) override {
    detail::require_work(work);
    const ScratchScope scope(ctx.scratch);
    const auto groups = work.plan.groups();
    auto left = static_cast<Index>(groups.size());
    auto* wanted = ctx.scratch.take<ExpertKey>(left);
    auto* room = ctx.scratch.take<LeasedExpert>(left);
    std::transform(groups.begin(), groups.end(), wanted, [](const DispatchPlan::Group& g) { return g.key; });
    ops::ProductInput h{work.h, {}, {}};
    while (left > 0) {
      const std::span<ExpertKey> keys(wanted, static_cast<std::size_t>(left));
      const ExpertLease lease =
          store_.acquire({.layer = work.layer, .wanted = keys, .room = {room, keys.size()}, .cancel = work.cancel});
      left = detail::strike(work.layer, keys, lease.experts());
      detail::run_leased(ctx, work, lease.experts(), h);
    }
  }

 private:
  ExpertStore& store_;
};

// The same with one layer's experts in memory: runs every expert of the plan on its tokens.  h [n, dim], outputs
// [plan.n_rows(), dim], grouped by expert. Throws Error(kInvalidArgument) on shapes that do not fit, and what the hook
// throws.
inline void run_experts(const OpContext& ctx, std::span<const ExpertWeights> experts, const DispatchPlan& plan,
                        TensorView<const float, 2> h, TensorView<float, 2> outputs, const ExpertHook* hook = nullptr) {
  require(static_cast<Index>(experts.size()) == plan.n_experts(), "run_experts: ", experts.size(),
          " experts, for a plan of ", plan.n_experts());
  ExpertsInMemory store(experts);
  const CancelFlag never;
  LocalExperts(store).run(
      ctx, {.layer = -1, .rows = {}, .plan = plan, .h = h, .outputs = outputs, .hook = hook, .cancel = never});
}

}  // namespace mixtral::moe
