// Chooses each token's experts.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>

#include "mixtral/ops/activation.hpp"
#include "mixtral/ops/linear.hpp"

namespace mixtral::moe {

// One layer's routing of n tokens. Plain views: the caller owns the memory.
struct RouterOutput {
  TensorView<float, 2> logits;      // [n, n_experts], as its weights give them
  TensorView<ExpertId, 2> experts;  // [n, k], the largest logit first; a policy may leave kNoExpert in any place
  TensorView<float, 2> weights;     // [n, k], softmax over the chosen: a row adds up to 1, unless a policy wants other
  TensorView<ExpertVersion, 2> versions = {};  // [n, k], kCurrentVersion unless a policy wants other; none: all are
};

// The same, for who only looks.
struct RoutingView {
  TensorView<const float, 2> logits;
  TensorView<const ExpertId, 2> experts;
  TensorView<const float, 2> weights;
  TensorView<const ExpertVersion, 2> versions;

  RoutingView(const RouterOutput& r)  // NOLINT: implicit
      : logits(r.logits), experts(r.experts), weights(r.weights), versions(r.versions) {}
};

namespace detail {

// The k largest logits by insertion, ties to the lower id. False if fewer than k are usable.
inline bool top_k(std::span<const float> logits, std::span<ExpertId> ids, std::span<float> values) noexcept {
  std::size_t found = 0;
  for (std::size_t e = 0; e < logits.size(); ++e) {
    if (!std::isfinite(logits[e])) continue;
    std::size_t at = found;
    while (at > 0 && logits[e] > values[at - 1]) --at;
    if (at == ids.size()) continue;
    if (found < ids.size()) ++found;
    for (std::size_t i = found - 1; i > at; --i) {
      ids[i] = ids[i - 1];
      values[i] = values[i - 1];
    }
    ids[at] = static_cast<ExpertId>(e);
    values[at] = logits[e];
  }
  return found == ids.size();
}

// The k best of one row and their softmax. False if fewer than k are usable.
inline bool select_row(const KernelTable& table, std::span<const float> logits, Index k, ExpertId* ids,
                       float* weights) noexcept {
  if (logits.size() == 8 && k == 2) return table.top2_of_8(logits.data(), ids, weights);
  const auto n = static_cast<std::size_t>(k);
  if (!top_k(logits, {ids, n}, {weights, n})) return false;
  table.softmax(weights, k);
  return true;
}

// select(t, room) for each of n rows on all workers, room [n_experts] a worker's own. Throws Error(kInvalidArgument)
// for the first row of which it says false: it wanted wanted(t) experts.
template <class Wanted, class F>
void select_rows(const OpContext& ctx, Index n, Index n_experts, Wanted&& wanted, F&& select) {
  const ScratchScope scope(ctx.scratch);
  const auto room = ctx.scratch.matrix<float>(ctx.executor.n_workers(), n_experts);
  std::atomic<Index> bad = n;
  ops::for_blocks(ctx, n, 128, [&](Index begin, Index end, int worker) {
    for (Index t = begin; t < end; ++t) {
      if (select(t, room.row(worker))) continue;
      Index first = bad.load();
      while (t < first && !bad.compare_exchange_weak(first, t)) {
      }
      return;
    }
  });
  if (const Index t = bad; t < n) [[unlikely]] {
    fail(ErrorCode::kInvalidArgument, "router: token ", t, " has fewer than ", wanted(t), " of ", n_experts,
         " experts with a usable logit");
  }
}

}  // namespace detail

// Chooses experts for logits that are there already: the k largest among the available ones, ties to the
// lower id, then softmax over the chosen (equal to softmax over all, top-k, renormalise). Top-2 of 8 runs in
// one SIMD register; any other shape takes the general path, with the same result.
// `available` [n_experts]: 0 masks an expert; empty: all are available. logits [n, n_experts].
// Throws Error(kInvalidArgument) on shapes, and where a token has fewer than k experts with a usable logit
// (masked, infinite and NaN are not); the output is then unspecified.
inline void select_experts(const OpContext& ctx, std::span<const std::uint8_t> available, const RouterOutput& out) {
  const Index n = out.logits.dim(0), n_experts = out.logits.dim(1), k = out.experts.dim(1);
  require(out.experts.dim(0) == n && out.weights.shape() == out.experts.shape() && k >= 1 && k <= n_experts,
          "router: logits are ", out.logits.shape(), ", experts ", out.experts.shape(), ", weights ",
          out.weights.shape());
  require(available.empty() || static_cast<Index>(available.size()) == n_experts, "router: the mask has ",
          available.size(), " entries for ", n_experts, " experts");
  detail::select_rows(
      ctx, n, n_experts, [&](Index) { return k; },
      [&](Index t, float* masked) {
        const float* logits = out.logits.row(t);
        if (!available.empty()) {
          for (Index e = 0; e < n_experts; ++e) {
            masked[e] =
                available[static_cast<std::size_t>(e)] != 0 ? logits[e] : -std::numeric_limits<float>::infinity();
          }
          logits = masked;
        }
        return detail::select_row(ctx.table, {logits, static_cast<std::size_t>(n_experts)}, k, out.experts.row(t),
                                  out.weights.row(t));
      });
}

// logits = x w^T in float32, whatever the table rounds elsewhere.  w [n_experts, dim], x [n, dim]
inline void router_logits(const OpContext& ctx, const MatrixView& w, TensorView<const float, 2> x,
                          TensorView<float, 2> logits, std::optional<TensorSlot> slot = {}) {
  const ops::LinearJob job{.w = w, .y = logits, .exact = true, .slot = slot};
  ops::linear(ctx, std::span(&job, 1), x);
}

// Logits and choice: router_logits(), select_experts().
inline void route(const OpContext& ctx, const MatrixView& w, TensorView<const float, 2> x,
                  std::span<const std::uint8_t> available, const RouterOutput& out) {
  router_logits(ctx, w, x, out.logits);
  select_experts(ctx, available, out);
}

}  // namespace mixtral::moe
