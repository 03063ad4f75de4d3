// The forward pass: one ragged batch of tokens from any number of sequences, from ids to logits.
#pragma once

#include <span>
#include <vector>

#include "mixtral/model/config.hpp"
#include "mixtral/model/forward_observer.hpp"
#include "mixtral/model/kv_cache.hpp"
#include "mixtral/model/weights.hpp"
#include "mixtral/moe/moe_layer.hpp"
#include "mixtral/ops/attention.hpp"
#include "mixtral/ops/embedding.hpp"
#include "mixtral/ops/linear.hpp"
#include "mixtral/ops/rms_norm.hpp"
#include "mixtral/ops/rope.hpp"

namespace mixtral {

// n rows: the tokens of this step from all sequences, in any order of sequences; the rows of one sequence
// stand in rising, gapless positions that the cache has reserved. Plain data.
struct StepInput {
  std::span<const TokenId> tokens;    // [n]
  std::span<const Index> positions;   // [n], from 0
  std::span<const SlotId> slots;      // [n], of the KvCache
  std::span<const Index> logit_rows;  // [m], rows whose logits are wanted
};

namespace detail {

inline void require_step(const Model& model, const StepInput& in, const KvCache& cache, TensorView<float, 2> logits) {
  const std::size_t n = in.tokens.size();
  require(cache.layout() == kv_layout(model.config, cache.layout().dtype),
          "step: the cache was made for another model");
  require(static_cast<Index>(model.weights.layers.size()) == model.config.n_layers, "step: weights of ",
          model.weights.layers.size(), " layers, expected ", model.config.n_layers);
  require(in.positions.size() == n && in.slots.size() == n, "step: ", n, " tokens, ", in.positions.size(),
          " positions, ", in.slots.size(), " slots");
  require(logits.dim(0) == static_cast<Index>(in.logit_rows.size()) &&
              (logits.dim(0) == 0 || logits.dim(1) == model.config.vocab_size),
          "step: logits are ", shape_text(logits.shape()), ", expected [", in.logit_rows.size(), ", ",
          model.config.vocab_size, "]");
  for (const Index row : in.logit_rows) {
    require(row >= 0 && row < static_cast<Index>(n), "step: logits of row ", row, " of ", n);
  }
  for (std::size_t t = 0; t < n; ++t) {
    require(in.positions[t] >= cache.length(in.slots[t]) && in.positions[t] < cache.capacity(in.slots[t]), "step: row ",
            t, " is at position ", in.positions[t], ", slot ", in.slots[t], " has positions [",
            cache.length(in.slots[t]), ", ", cache.capacity(in.slots[t]), ") reserved");
    // The slot's row before this one, usually the neighbour.
    std::size_t before = t;
    while (before > 0 && in.slots[before - 1] != in.slots[t]) --before;
    require(before == 0 || in.positions[t] == in.positions[before - 1] + 1, "step: row ", t, " is at position ",
            in.positions[t], ", the row of slot ", in.slots[t], " before it at another than ", in.positions[t] - 1);
  }
}

// Buffers of one step, for n rows.
struct StepBuffers {
  TensorView<float, 2> x, h, q, k, v, attended;  // [n, dim], [n, dim], [n, heads * head_dim] ...
  ops::RopeAngles angles;
  RouterOutput routing;
  std::span<ops::AttentionRow> rows;

  StepBuffers(const ModelConfig& c, Scratch& scratch, Index n)
      : x(scratch.matrix<float>(n, c.dim)),
        h(scratch.matrix<float>(n, c.dim)),
        q(scratch.matrix<float>(n, c.n_heads * c.head_dim)),
        k(scratch.matrix<float>(n, c.n_kv_heads * c.head_dim)),
        v(scratch.matrix<float>(n, c.n_kv_heads * c.head_dim)),
        attended(scratch.matrix<float>(n, c.n_heads * c.head_dim)),
        angles{scratch.matrix<float>(n, c.head_dim / 2), scratch.matrix<float>(n, c.head_dim / 2)},
        routing{scratch.matrix<float>(n, c.n_experts), scratch.matrix<ExpertId>(n, c.n_experts_per_tok),
                scratch.matrix<float>(n, c.n_experts_per_tok)},
        rows(scratch.take<ops::AttentionRow>(n), static_cast<std::size_t>(n)) {}
};

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

// x += wo attention(rope(wq h), rope(wk h), wv h), h = norm(x); writes the new keys and values.
inline void attention_block(const OpContext& ctx, const Model& model, Index layer, const StepInput& in, KvCache& cache,
                            const StepBuffers& b, ForwardObserver* observer) {
  const ModelConfig& c = model.config;
  const LayerWeights& w = model.weights.layers[static_cast<std::size_t>(layer)];
  ops::rms_norm(ctx, b.x, w.attention_norm, c.norm_eps, b.h);
  if (observer != nullptr) observer->on_attention_norm(layer, b.h);
  const ops::LinearJob jobs[] = {{w.wq, b.q}, {w.wk, b.k}, {w.wv, b.v}};
  ops::linear(ctx, jobs, b.h);
  ops::rope(ctx, b.q, b.angles, c.rope_pairing);
  ops::rope(ctx, b.k, b.angles, c.rope_pairing);
  write_kv(ctx, layer, in, cache, b);
  ops::attention(ctx, b.q, b.rows, cache.layout(), layer, c.sliding_window, b.attended);
  if (observer != nullptr) observer->on_attended(layer, b.attended);
  ops::linear(ctx, w.wo, b.attended, b.h);
  if (observer != nullptr) observer->on_attention(layer, b.h);
  ctx.executor.parallel_for(b.x.dim(0), [&](Index t, int) {
    ctx.table.axpy(1.0f, b.h.row(t), c.dim, b.x.row(t));
  });
}

// x += the chosen experts' outputs on h, h = norm(x).
inline void moe_block(const OpContext& ctx, const Model& model, Index layer, DispatchPlan& plan, const StepBuffers& b,
                      ForwardObserver* observer) {
  const LayerWeights& w = model.weights.layers[static_cast<std::size_t>(layer)];
  ops::rms_norm(ctx, b.x, w.ffn_norm, model.config.norm_eps, b.h);
  moe::route(ctx, w.gate, b.h, {}, b.routing);
  if (observer != nullptr) observer->on_routing(layer, b.routing);
  const auto watch = [&](const moe::ExpertRows& rows) { observer->on_expert(layer, rows); };
  const moe::ExpertHook hook(watch);
  moe::moe_layer(ctx, w.experts, b.routing, plan, b.h, b.x, observer != nullptr ? &hook : nullptr);
}

// logits of the wanted rows.  x [n, dim], logits [m, vocab_size]
inline void head(const OpContext& ctx, const Model& model, std::span<const Index> rows, TensorView<const float, 2> x,
                 TensorView<float, 2> logits, ForwardObserver* observer) {
  const auto m = static_cast<Index>(rows.size());
  if (m == 0) return;
  const auto wanted = ctx.scratch.matrix<float>(m, model.config.dim);
  for (Index i = 0; i < m; ++i) std::copy_n(x.row(rows[static_cast<std::size_t>(i)]), x.dim(1), wanted.row(i));
  ops::rms_norm(ctx, wanted, model.weights.final_norm, model.config.norm_eps, wanted);
  if (observer != nullptr) observer->on_final_norm(wanted);
  ops::linear(ctx, model.config.tied_embeddings ? model.weights.embedding : model.weights.head, wanted, logits);
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

// Computes one step, in the library's floating-point environment, observers included. Keys and values are written at
// reserved positions of the cache: the caller commits them afterwards, or rolls back after an exception, and then
// nothing has changed. Logits [m, vocab_size] in the order of logit_rows. Every row's result depends on its own
// sequence alone: batches, splits of a prompt and the number of workers change no bit. Throws Error(kInvalidArgument)
// on inputs that do not fit, and whatever the executor or observer throws.
class Forward {
 public:
  void operator()(const OpContext& ctx, const Model& model, const StepInput& in, KvCache& cache,
                  TensorView<float, 2> logits, ForwardObserver* observer = nullptr) {
    detail::require_step(model, in, cache, logits);
    ctx.executor.run_team([&](Executor& team) {
      const FloatScope floats;
      detail::StepExecutor executor(team, floats);
      compute({ctx.table, executor, ctx.scratch}, model, in, cache, logits, observer);
    });
  }

 private:
  void compute(const OpContext& ctx, const Model& model, const StepInput& in, KvCache& cache,
               TensorView<float, 2> logits, ForwardObserver* observer) {
    const ScratchScope scope(ctx.scratch);
    const detail::StepBuffers b(model.config, ctx.scratch, static_cast<Index>(in.tokens.size()));
    for (std::size_t t = 0; t < in.tokens.size(); ++t) b.rows[t] = {cache.pages(in.slots[t]), in.positions[t]};
    ops::rope_angles(in.positions, model.config.head_dim, static_cast<double>(model.config.rope_theta), b.angles);
    ops::embedding(ctx, model.weights.embedding, in.tokens, b.x);
    if (observer != nullptr) observer->on_embedding(b.x);
    for (Index layer = 0; layer < model.config.n_layers; ++layer) {
      detail::attention_block(ctx, model, layer, in, cache, b, observer);
      detail::moe_block(ctx, model, layer, plan_, b, observer);
      if (observer != nullptr) observer->on_layer(layer, b.x);
    }
    detail::head(ctx, model, in.logit_rows, b.x, logits, observer);
  }

  DispatchPlan plan_;  // keeps its capacity between steps
};

}  // namespace mixtral
