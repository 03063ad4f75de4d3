// Who chooses each row's experts.
#pragma once

#include <algorithm>
#include <limits>
#include <span>

#include "mixtral/core/row_info.hpp"
#include "mixtral/moe/dispatch_plan.hpp"
#include "mixtral/moe/router.hpp"

namespace mixtral::moe {

// Turns a layer's router logits into choices, row by row. A row has up to k of them, in places of its own choice: an
// unused place holds kNoExpert, and a row without any keeps its residual. Weights are used as they are. Called on the
// thread that runs the step. Where results must not depend on batches, a row's choices depend on that row alone.
class RoutePolicy {
 public:
  virtual ~RoutePolicy() = default;
  // rows [n]; out.logits [n, n_experts] are the router's, out.experts and out.weights [n, k] are to be written, and
  // out.versions where they are not the current ones. k is at least what any row's identity asks for. What it throws
  // ends the step.
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

// One row's choices by its rules: biases, masks, the best of what is left, softmax over them; without those below
// min_weight once more. False if fewer than wanted are usable, or none is left. logits: room [n_experts]
inline bool select_by_rules(const KernelTable& table, const RoutingRules& rules, Index layer, Index k,
                            const RouterOutput& out, Index t, float* logits) noexcept {
  const auto n_experts = static_cast<std::size_t>(out.logits.dim(1));
  std::copy_n(out.logits.row(t), n_experts, logits);
  const auto place_of = [](const auto& item) -> const ExpertPlace& { return item.place; };
  for (const auto& [place, bias] : of_layer(rules.biases, layer, place_of)) logits[place.expert] += bias;
  const auto masked = of_layer(rules.masked, layer, [](const ExpertPlace& p) -> const ExpertPlace& { return p; });
  for (const ExpertPlace& place : masked) logits[place.expert] = -std::numeric_limits<float>::infinity();
  const auto left = static_cast<Index>(n_experts - masked.size());
  Index chosen = std::min(rules.experts_per_token > 0 ? rules.experts_per_token : k, left);
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
  // 0: as many as a row has places.
  explicit TopK(Index k = 0) noexcept : k_(k) {}

  void choose(const OpContext& ctx, Index layer, std::span<const RowInfo> rows, const RouterOutput& out) override {
    const Index places = out.experts.dim(1), k = k_ > 0 ? k_ : places;
    const auto has_rules = [](const RowInfo& row) { return row.identity != nullptr && !row.identity->is_default(); };
    if (k == places && std::none_of(rows.begin(), rows.end(), has_rules)) return select_experts(ctx, {}, out);
    const RoutingIdentity none;
    detail::select_rows(ctx, out.logits.dim(0), out.logits.dim(1), k, [&](Index t, float* room) {
      const RoutingIdentity* identity = rows[static_cast<std::size_t>(t)].identity;
      const RoutingRules& rules = (identity != nullptr ? *identity : none).rules();
      return detail::select_by_rules(ctx.table, rules, layer, k, out, t, room);
    });
  }

 private:
  Index k_;
};

}  // namespace mixtral::moe
