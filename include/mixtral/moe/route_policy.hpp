// Who chooses each row's experts.
#pragma once

#include <algorithm>
#include <limits>
#include <span>

#include "mixtral/core/row_info.hpp"
#include "mixtral/moe/dispatch_plan.hpp"
#include "mixtral/moe/router.hpp"

namespace mixtral::moe {

// Turns a layer's router logits into choices, row by row. An unused place of a row holds kNoExpert, and a row without
// any choice keeps its residual. Weights are used as they are. Called on the thread that runs the step. Where results
// must not depend on batches, a row's choices depend on that row alone.
class RoutePolicy {
 public:
  virtual ~RoutePolicy() = default;
  // How many places each row of a step gets. k: the model's experts per token.
  virtual Index places(std::span<const RowInfo> /*rows*/, Index k) const noexcept { return k; }
  // rows [n]; out.logits [n, n_experts] are the router's, out.experts and out.weights [n, places] are to be written,
  // and out.versions where they are not the current ones. What it throws ends the step.
  virtual void choose(const OpContext& ctx, Index layer, std::span<const RowInfo> rows, const RouterOutput& out) = 0;
};

namespace detail {

// The part of a list, sorted by place, that is of one layer.
template <class T, class PlaceOf>
std::span<const T> of_layer(const std::vector<T>& all, Index layer, PlaceOf place_of) noexcept {
  const auto begin =
      std::partition_point(all.begin(), all.end(), [&](const T& item) { return place_of(item).layer < layer; });
  const auto end = std::partition_point(begin, all.end(), [&](const T& item) { return place_of(item).layer == layer; });
  return {begin, end};
}

// Experts that a row wants: as many as its rules say, or k.
inline Index experts_wanted(const RowInfo& row, Index k) noexcept {
  const Index own = row.identity == nullptr ? 0 : row.identity->rules().experts_per_token;
  return own > 0 ? own : k;
}

// One row's choices by its rules: biases, masks, the best `wanted` of what is left, softmax over them; without those
// below min_weight once more. False if fewer are usable, or none is left. logits: room [n_experts]
inline bool select_by_rules(const KernelTable& table, const RoutingRules& rules, Index layer, Index wanted,
                            const RouterOutput& out, Index t, float* logits) noexcept {
  const auto n_experts = static_cast<std::size_t>(out.logits.dim(1));
  std::copy_n(out.logits.row(t), n_experts, logits);
  const auto place_of = [](const auto& item) -> const ExpertPlace& { return item.place; };
  for (const auto& [place, bias] : of_layer(rules.biases, layer, place_of)) logits[place.expert] += bias;
  const auto masked = of_layer(rules.masked, layer, [](const ExpertPlace& p) -> const ExpertPlace& { return p; });
  for (const ExpertPlace& place : masked) logits[place.expert] = -std::numeric_limits<float>::infinity();
  const Index chosen = std::min(wanted, static_cast<Index>(n_experts - masked.size()));
  ExpertId* const ids = out.experts.row(t);
  float* const weights = out.weights.row(t);
  if (chosen == 0 || !select_row(table, {logits, n_experts}, chosen, ids, weights)) return false;
  Index kept = chosen;
  while (kept > 1 && weights[kept - 1] < rules.min_weight) --kept;
  if (kept < chosen) {
    for (Index i = 0; i < kept; ++i) weights[i] = logits[ids[i]];
    table.softmax(weights, kept);
  }
  std::fill(ids + kept, ids + out.experts.dim(1), kNoExpert);
  std::fill(weights + kept, weights + out.experts.dim(1), 0.0f);
  if (out.versions.data() == nullptr) return true;
  for (const auto& [place, version] : of_layer(rules.versions, layer, place_of)) {
    for (Index i = 0; i < kept; ++i) {
      if (ids[i] == place.expert) out.versions.row(t)[i] = version;
    }
  }
  return true;
}

}  // namespace detail

// The model's own choice: the k largest logits, softmax over them (Mixtral of Experts, arXiv:2401.04088, section 2.1).
// A row with an identity is chosen for by its rules: biases are added to its logits, masked experts are left out (with
// fewer than k left, all that are left are chosen), its own number of experts and versions are taken. A choice other
// than the first whose weight is below min_weight is dropped, and the weights are the softmax over those kept.
class TopK final : public RoutePolicy {
 public:
  explicit TopK(Index k) noexcept : k_(k) {}

  Index places(std::span<const RowInfo> rows, Index k) const noexcept override {
    for (const RowInfo& row : rows) k = std::max(k, detail::experts_wanted(row, k_));
    return k;
  }

  // Throws Error(kInvalidArgument) on shapes and identities that do not fit, and where a row has fewer usable logits
  // than it wants experts.
  void choose(const OpContext& ctx, Index layer, std::span<const RowInfo> rows, const RouterOutput& out) override {
    const Index n = out.logits.dim(0), n_experts = out.logits.dim(1), places = out.experts.dim(1);
    const auto has_rules = [](const RowInfo& row) { return row.identity != nullptr && !row.identity->is_default(); };
    if (k_ == places && std::none_of(rows.begin(), rows.end(), has_rules)) return select_experts(ctx, {}, out);
    require_fit(rows, out);
    const RoutingIdentity none;
    const auto wanted = [&](Index t) { return detail::experts_wanted(rows[static_cast<std::size_t>(t)], k_); };
    detail::select_rows(ctx, n, n_experts, wanted, [&](Index t, float* room) {
      const RoutingIdentity* identity = rows[static_cast<std::size_t>(t)].identity;
      const RoutingRules& rules = (identity != nullptr ? *identity : none).rules();
      return detail::select_by_rules(ctx.table, rules, layer, wanted(t), out, t, room);
    });
  }

 private:
  void require_fit(std::span<const RowInfo> rows, const RouterOutput& out) const {
    const Index n = out.logits.dim(0), n_experts = out.logits.dim(1), places = out.experts.dim(1);
    require(static_cast<Index>(rows.size()) == n && out.experts.dim(0) == n &&
                out.weights.shape() == out.experts.shape() &&
                (out.versions.data() == nullptr || out.versions.shape() == out.experts.shape()),
            "router: ", rows.size(), " rows, logits are ", out.logits.shape(), ", experts ", out.experts.shape(),
            ", weights ", out.weights.shape(), ", versions ", out.versions.shape());
    for (std::size_t t = 0; t < rows.size(); ++t) {
      const Index wanted = detail::experts_wanted(rows[t], k_);
      const Index known = rows[t].identity == nullptr ? 0 : rows[t].identity->n_experts();
      require(wanted >= 1 && wanted <= places && known <= n_experts, "router: row ", t, " wants ", wanted,
              " experts in ", places, " places, its identity is about ", known, " experts of ", n_experts);
    }
  }

  Index k_;
};

}  // namespace mixtral::moe
