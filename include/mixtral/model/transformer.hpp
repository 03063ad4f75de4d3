// The forward pass: one ragged batch of tokens from any number of sequences, from ids to logits.
#pragma once

#include <span>
#include <vector>

#include "mixtral/model/config.hpp"
#include "mixtral/model/forward_observer.hpp"
#include "mixtral/model/kv_cache.hpp"
#include "mixtral/model/weights.hpp"
#include "mixtral/moe/moe_layer.hpp"
#include "mixtral/moe/route_policy.hpp"
#include "mixtral/ops/attention.hpp"
#include "mixtral/ops/embedding.hpp"
#include "mixtral/ops/linear.hpp"
#include "mixtral/ops/rms_norm.hpp"
#include "mixtral/ops/rope.hpp"

namespace mixtral {

// n rows: the tokens of this step from all sequences, in any order of sequences; the rows of one sequence
// stand in rising, gapless positions that the cache has reserved. Plain data.
struct StepInput {
  std::span<const TokenId> tokens = {};    // [n]
  std::span<const Index> positions = {};   // [n], from 0
  std::span<const SlotId> slots = {};      // [n], of the KvCache
  std::span<const Index> logit_rows = {};  // [m], rows whose logits are wanted
  // [n], what each row's experts are chosen by; null, or no list: the model's own routing.
  std::span<const RoutingIdentity* const> identities = {};
};

// Who takes part in a step beside the model; null: nobody, top-k by each row's identity, the model's experts where they
// are. They must outlive the step.
struct StepHooks {
  ForwardObserver* observer = nullptr;
  moe::RoutePolicy* routes = nullptr;
  moe::ExpertBackend* experts = nullptr;
  const CancelFlag* cancel = nullptr;  // asked before and after each layer, and by who waits in it
  TaskClock* clock = nullptr;

  StepHooks() = default;
  StepHooks(ForwardObserver* o) noexcept : observer(o) {}  // NOLINT: implicit, most have nothing else
};

namespace detail {

// Row t's wishes are about experts that the model has. Adapters have nobody who would add them yet.
inline void require_identity(const ModelConfig& c, const RoutingIdentity& identity, std::size_t t) {
  require(identity.n_layers() <= c.n_layers && identity.n_experts() <= c.n_experts, "step: row ", t,
          "'s routing identity is for ", identity.n_layers(), " layers of ", identity.n_experts(),
          " experts, the model has ", c.n_layers, " of ", c.n_experts);
  require(identity.most_masked() < c.n_experts, "step: row ", t, "'s routing identity masks all ", c.n_experts,
          " experts of a layer");
  require(identity.rules().adapters.empty(), ErrorCode::kUnsupported, "step: row ", t,
          "'s routing identity asks for adapters");
}

// The layers' weights and the rows of a step. Layers [begin, end) are computed with a cache of all layers, or of these.
inline void require_rows(const Model& model, const StepInput& in, Index begin, Index end, const KvCache& cache,
                         Scratch& scratch) {
  const std::size_t n = in.positions.size();
  const Index n_layers = model.config.n_layers;
  require(0 <= begin && begin <= end && end <= n_layers, "step: layers [", begin, ", ", end, ") of ", n_layers);
  KvLayout want = kv_layout(model.config, cache.layout().dtype);
  if (cache.layout().n_layers != n_layers) want.n_layers = end - begin;
  require(cache.layout() == want, "step: the cache was made for another model");
  require(static_cast<Index>(model.weights.layers.size()) == n_layers, "step: weights of ", model.weights.layers.size(),
          " layers, expected ", n_layers);
  require(in.slots.size() == n, "step: ", n, " positions, ", in.slots.size(), " slots");
  require(in.identities.empty() || in.identities.size() == n, "step: ", n, " positions, ", in.identities.size(),
          " routing identities");
  for (std::size_t t = 0; t < in.identities.size(); ++t) {
    if (in.identities[t] != nullptr) require_identity(model.config, *in.identities[t], t);
  }
  const ScratchScope scope(scratch);
  const std::span<Index> next(scratch.take<Index>(cache.n_slots()), static_cast<std::size_t>(cache.n_slots()));
  std::fill(next.begin(), next.end(), -1);  // each slot's position after its row before; -1: it had none
  for (std::size_t t = 0; t < n; ++t) {
    require(in.positions[t] >= cache.length(in.slots[t]) && in.positions[t] < cache.capacity(in.slots[t]), "step: row ",
            t, " is at position ", in.positions[t], ", slot ", in.slots[t], " has positions [",
            cache.length(in.slots[t]), ", ", cache.capacity(in.slots[t]), ") reserved");
    Index& expected = next[static_cast<std::size_t>(in.slots[t])];
    require(expected < 0 || in.positions[t] == expected, "step: row ", t, " is at position ", in.positions[t],
            ", the row of slot ", in.slots[t], " before it at another than ", in.positions[t] - 1);
    expected = in.positions[t] + 1;
  }
}

inline void require_logits(const Model& model, std::span<const Index> rows, Index n, TensorView<float, 2> logits) {
  require(rows.empty() || model.config.has_head, ErrorCode::kNotFound, "step: logits of ", rows.size(),
          " rows are wanted, the model has no head");
  require(logits.dim(0) == static_cast<Index>(rows.size()) &&
              (logits.dim(0) == 0 || logits.dim(1) == model.config.vocab_size),
          "step: logits are ", logits.shape(), ", expected [", rows.size(), ", ", model.config.vocab_size, "]");
  for (const Index row : rows) require(row >= 0 && row < n, "step: logits of row ", row, " of ", n);
}

// Buffers of one step, for the rows of x.
struct StepBuffers {
  TensorView<float, 2> x, h, q, k, v, attended;  // [n, dim], [n, dim], [n, heads * head_dim] ...
  ops::RopeAngles angles;
  moe::RouterOutput routing;
  std::span<ops::AttentionRow> rows;

  // places: for experts of each row
  StepBuffers(const ModelConfig& c, Scratch& scratch, TensorView<float, 2> rows_in, Index n, Index places)
      : x(rows_in),
        h(scratch.matrix<float>(n, c.dim)),
        q(scratch.matrix<float>(n, c.n_heads * c.head_dim)),
        k(scratch.matrix<float>(n, c.n_kv_heads * c.head_dim)),
        v(scratch.matrix<float>(n, c.n_kv_heads * c.head_dim)),
        attended(scratch.matrix<float>(n, c.n_heads * c.head_dim)),
        angles{scratch.matrix<float>(n, c.head_dim / 2), scratch.matrix<float>(n, c.head_dim / 2)},
        routing{scratch.matrix<float>(n, c.n_experts), scratch.matrix<ExpertId>(n, places),
                scratch.matrix<float>(n, places), scratch.matrix<ExpertVersion>(n, places)},
        rows(scratch.take<ops::AttentionRow>(n), static_cast<std::size_t>(n)) {}
};

// Whose rows they are.
inline std::span<const RowInfo> row_infos(Scratch& scratch, const StepInput& in) {
  const std::size_t n = in.positions.size();
  const std::span<RowInfo> rows(scratch.take<RowInfo>(static_cast<Index>(n)), n);
  for (std::size_t t = 0; t < n; ++t) {
    rows[t] = {in.slots[t], in.positions[t], in.identities.empty() ? nullptr : in.identities[t]};
  }
  return rows;
}

// Puts the new keys and values into the cache.
inline void write_kv(const OpContext& ctx, Index layer, const StepInput& in, const KvCache& cache,
                     const StepBuffers& b) {
  const KvLayout& kv = cache.layout();
  constexpr Index kRows = 64;  // of a task
  const Index n = b.k.dim(0);
  ctx.executor.parallel_for((n + kRows - 1) / kRows, [&](Index task, int) {
    for (Index row = task * kRows; row < std::min(n, (task + 1) * kRows); ++row) {
      const auto t = static_cast<std::size_t>(row);
      std::byte* page = cache.pages(in.slots[t])[in.positions[t] / KvLayout::kPositions];
      kv.write(page, layer, in.positions[t], b.k.row(row), b.v.row(row));
    }
  });
}

// x += wo attention(rope(wq h), rope(wk h), wv h), h = norm(x); writes the new keys and values as those of the cache's
// layer kv_layer.
inline void attention_block(const OpContext& ctx, const Model& model, Index layer, const StepInput& in, KvCache& cache,
                            Index kv_layer, const StepBuffers& b, ForwardObserver& observer) {
  const ModelConfig& c = model.config;
  const LayerWeights& w = model.weights.layers[static_cast<std::size_t>(layer)];
  ops::rms_norm(ctx, b.x, w.attention_norm, c.norm_eps, b.h);
  observer.on_attention_norm(layer, b.h);
  const auto job = [&](TensorKind kind, const MatrixView& weights, TensorView<float, 2> y, const ops::LowRank* more) {
    return ops::LinearJob{.w = weights, .y = y, .slot = TensorSlot{kind, layer}, .low_rank = more};
  };
  const ops::LinearJob jobs[] = {job(TensorKind::kWq, w.wq, b.q, w.low_rank.wq),
                                 job(TensorKind::kWk, w.wk, b.k, w.low_rank.wk),
                                 job(TensorKind::kWv, w.wv, b.v, w.low_rank.wv)};
  ops::linear(ctx, jobs, b.h);
  ops::rope(ctx, b.q, b.angles, c.rope_pairing);
  ops::rope(ctx, b.k, b.angles, c.rope_pairing);
  write_kv(ctx, kv_layer, in, cache, b);
  ops::attention(ctx, b.q, b.rows, cache.layout(), kv_layer, c.sliding_window, b.attended);
  observer.on_attended(layer, b.attended);
  const ops::LinearJob out = job(TensorKind::kWo, w.wo, b.h, w.low_rank.wo);
  ops::linear(ctx, {&out, 1}, b.attended);
  observer.on_attention(layer, b.h);
  ctx.executor.parallel_for(b.x.dim(0), [&](Index t, int) { ctx.table.axpy(1.0f, b.h.row(t), c.dim, b.x.row(t)); });
}

// Hooks; only experts may be null: the model's own are each layer's.
struct Hooks {
  ForwardObserver& observer;
  moe::RoutePolicy& routes;
  moe::ExpertBackend* experts;
  const CancelFlag& cancel;
};

// x += the chosen experts' outputs on h, h = norm(x).
inline void moe_block(const OpContext& ctx, const Model& model, Index layer, std::span<const RowInfo> rows,
                      moe::DispatchPlan& plan, const StepBuffers& b, const Hooks& hooks) {
  const LayerWeights& w = model.weights.layers[static_cast<std::size_t>(layer)];
  ops::rms_norm(ctx, b.x, w.ffn_norm, model.config.norm_eps, b.h);
  moe::router_logits(ctx, w.router, b.h, b.routing.logits, TensorSlot{TensorKind::kRouter, layer});
  std::fill_n(b.routing.versions.data(), b.routing.versions.shape().count(), kCurrentVersion);
  hooks.routes.choose(ctx, layer, rows, b.routing);
  hooks.observer.on_routing(layer, b.routing);
  const auto watch = [&](const moe::ExpertRows& expert) { hooks.observer.on_expert(layer, expert); };
  const moe::ExpertHook hook(watch);
  moe::ExpertsInMemory memory(w.experts);
  moe::LocalExperts local(memory);
  moe::moe_layer(ctx,
                 {.layer = layer,
                  .rows = rows,
                  .n_experts = model.config.n_experts,
                  .experts = hooks.experts != nullptr ? *hooks.experts : local,
                  .hook = &hook,
                  .cancel = hooks.cancel},
                 b.routing, plan, b.h, b.x);
}

// logits of the wanted rows.  x [n, dim], logits [m, vocab_size]
inline void head(const OpContext& ctx, const Model& model, std::span<const Index> rows, TensorView<const float, 2> x,
                 TensorView<float, 2> logits, ForwardObserver& observer) {
  const auto m = static_cast<Index>(rows.size());
  if (m == 0) return;
  const auto wanted = ctx.scratch.matrix<float>(m, model.config.dim);
  for (Index i = 0; i < m; ++i) std::copy_n(x.row(rows[static_cast<std::size_t>(i)]), x.dim(1), wanted.row(i));
  ops::rms_norm(ctx, wanted, model.weights.final_norm, model.config.norm_eps, wanted);
  observer.on_final_norm(wanted);
  const ops::LinearJob job{.w = model.config.tied_embeddings ? model.weights.embedding : model.weights.head,
                           .y = logits,
                           .slot = TensorSlot{TensorKind::kHead}};
  ops::linear(ctx, {&job, 1}, wanted);
}

// A step's view of the executor: what the host's own code does beside our tasks, it does in its own floating-point
// environment.
class StepExecutor final : public Executor {
 public:
  StepExecutor(Executor& team, const FloatScope& floats) noexcept : team_(team), floats_(floats) {}

  int n_workers() const noexcept override { return team_.n_workers(); }
  void parallel_for(Index n_tasks, Task task) override {
    const FloatScope host = FloatScope::outside(floats_);
    team_.parallel_for(n_tasks, task);
  }

 private:
  Executor& team_;
  const FloatScope& floats_;
};

}  // namespace detail

// Computes one step, in the library's floating-point environment, observers included: the rows' embeddings, all
// layers, the logits of wanted rows. Each of the three may be called alone, and layers in ranges, so that a model's
// layers may work in several places, one after the other: the bits are those of the whole. Keys and values are written
// at reserved positions of the cache, which has all layers or those of the range: the caller commits them afterwards,
// or rolls back after an exception, and then nothing has changed. Every row's result depends on its own sequence alone:
// batches, splits of a prompt and the number of workers change no bit. Throws Error(kInvalidArgument) on inputs that do
// not fit, Error(kNotFound) where logits are wanted of a model without a head, and whatever the executor or a hook
// throws.
class Forward {
 public:
  // Logits [m, vocab_size] in the order of in.logit_rows.
  void operator()(const OpContext& ctx, const Model& model, const StepInput& in, KvCache& cache,
                  TensorView<float, 2> logits, const StepHooks& hooks = {}) {
    const std::size_t n = in.tokens.size();
    require(in.positions.size() == n && in.slots.size() == n, "step: ", n, " tokens, ", in.positions.size(),
            " positions, ", in.slots.size(), " slots");
    detail::require_rows(model, in, 0, model.config.n_layers, cache, ctx.scratch);
    detail::require_logits(model, in.logit_rows, static_cast<Index>(n), logits);
    run(ctx, model, hooks, [&](const OpContext& step, const detail::Hooks& h) {
      const auto x = step.scratch.matrix<float>(static_cast<Index>(n), model.config.dim);
      const std::span<const RowInfo> rows = detail::row_infos(step.scratch, in);
      h.observer.on_step(rows);
      compute_embedding(step, model, in.tokens, x, h.observer);
      compute_layers(step, model, in, rows, 0, model.config.n_layers, cache, x, h);
      detail::head(step, model, in.logit_rows, x, logits, h.observer);
    });
  }

  // x [n, dim]: the tokens' embeddings.
  void embed(const OpContext& ctx, const Model& model, std::span<const TokenId> tokens, TensorView<float, 2> x,
             const StepHooks& hooks = {}) {
    require_x(model, static_cast<Index>(tokens.size()), x);
    run(ctx, model, hooks,
        [&](const OpContext& step, const detail::Hooks& h) { compute_embedding(step, model, tokens, x, h.observer); });
  }

  // Layers [begin, end) on x [n, dim], in place. Of `in`, positions, slots and identities are looked at.
  void layers(const OpContext& ctx, const Model& model, const StepInput& in, Index begin, Index end, KvCache& cache,
              TensorView<float, 2> x, const StepHooks& hooks = {}) {
    detail::require_rows(model, in, begin, end, cache, ctx.scratch);
    require_x(model, static_cast<Index>(in.positions.size()), x);
    run(ctx, model, hooks, [&](const OpContext& step, const detail::Hooks& h) {
      const std::span<const RowInfo> rows = detail::row_infos(step.scratch, in);
      h.observer.on_step(rows);
      compute_layers(step, model, in, rows, begin, end, cache, x, h);
    });
  }

  // logits [m, vocab_size] of rows of x [n, dim].
  void head(const OpContext& ctx, const Model& model, std::span<const Index> rows, TensorView<const float, 2> x,
            TensorView<float, 2> logits, const StepHooks& hooks = {}) {
    require_x(model, x.dim(0), x);
    detail::require_logits(model, rows, x.dim(0), logits);
    run(ctx, model, hooks,
        [&](const OpContext& step, const detail::Hooks& h) { detail::head(step, model, rows, x, logits, h.observer); });
  }

 private:
  static void require_x(const Model& model, Index n, TensorView<const float, 2> x) {
    require(x.dim(0) == n && x.dim(1) == model.config.dim, "step: x is ", x.shape(), ", expected [", n, ", ",
            model.config.dim, "]");
  }

  // f(context, hooks) on a team, with scratch memory until it ends.
  template <class F>
  static void run(const OpContext& ctx, const Model& model, const StepHooks& hooks, F&& f) {
    ctx.executor.run_team([&](Executor& team) {
      const FloatScope floats;
      detail::StepExecutor executor(team, floats);
      const ScratchScope scope(ctx.scratch);
      ForwardObserver nobody;
      moe::TopK top_k(model.config.n_experts_per_tok);
      const CancelFlag never;
      f(OpContext{ctx.table, executor, ctx.scratch, hooks.clock},
        detail::Hooks{hooks.observer != nullptr ? *hooks.observer : nobody,
                      hooks.routes != nullptr ? *hooks.routes : top_k, hooks.experts,
                      hooks.cancel != nullptr ? *hooks.cancel : never});
    });
  }

  static void compute_embedding(const OpContext& ctx, const Model& model, std::span<const TokenId> tokens,
                                TensorView<float, 2> x, ForwardObserver& observer) {
    ops::embedding(ctx, model.weights.embedding, tokens, x);
    observer.on_embedding(x);
  }

  void compute_layers(const OpContext& ctx, const Model& model, const StepInput& in, std::span<const RowInfo> rows,
                      Index begin, Index end, KvCache& cache, TensorView<float, 2> x, const detail::Hooks& hooks) {
    const ScratchScope scope(ctx.scratch);
    const Index places = hooks.routes.places(rows, model.config.n_experts_per_tok);
    const detail::StepBuffers b(model.config, ctx.scratch, x, x.dim(0), places);
    for (std::size_t t = 0; t < rows.size(); ++t) b.rows[t] = {cache.pages(rows[t].slot), rows[t].position};
    ops::rope_angles(in.positions, model.config.rope(), b.angles);
    const Index kv_begin = cache.layout().n_layers == model.config.n_layers ? 0 : begin;  // the cache's first layer
    hooks.cancel.check();
    for (Index layer = begin; layer < end; ++layer) {
      detail::attention_block(ctx, model, layer, in, cache, layer - kv_begin, b, hooks.observer);
      detail::moe_block(ctx, model, layer, rows, plan_, b, hooks);
      hooks.observer.on_layer(layer, b.x);
      hooks.cancel.check();
    }
  }

  moe::DispatchPlan plan_;  // keeps its capacity between steps
};

}  // namespace mixtral
