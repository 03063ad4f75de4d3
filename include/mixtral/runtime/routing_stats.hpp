// Which experts worked: counts per layer and expert.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "mixtral/model/config.hpp"
#include "mixtral/model/forward_observer.hpp"

namespace mixtral {

// Counts every (token, choice) of the steps that it observes.
class RoutingStats : public ForwardObserver {
 public:
  explicit RoutingStats(const ModelConfig& config)
      : n_experts_(config.n_experts), counts_(static_cast<std::size_t>(config.n_layers * config.n_experts)) {}

  void on_routing(Index layer, const moe::RoutingView& routing) override {
    for (Index t = 0; t < routing.experts.dim(0); ++t) {
      for (const ExpertId e : routing.experts.row_span(t)) {
        if (e != moe::kNoExpert) ++counts_[static_cast<std::size_t>(layer * n_experts_ + e)];
      }
    }
  }

  // Adds what another observer of the same model has counted.
  void add(const RoutingStats& other) noexcept {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  }

  Index n_layers() const noexcept { return static_cast<Index>(counts_.size()) / n_experts_; }
  Index n_experts() const noexcept { return n_experts_; }
  // How often `expert` was chosen in `layer`.
  Index count(Index layer, Index expert) const noexcept {
    return counts_[static_cast<std::size_t>(layer * n_experts_ + expert)];
  }
  // Choices in `layer` altogether: tokens times experts per token, unless a policy chose otherwise.
  Index total(Index layer) const noexcept {
    Index sum = 0;
    for (Index e = 0; e < n_experts_; ++e) sum += count(layer, e);
    return sum;
  }
  // All counts, [n_layers, n_experts].
  std::span<const Index> counts() const noexcept { return counts_; }
  void reset() noexcept { std::fill(counts_.begin(), counts_.end(), 0); }

 private:
  Index n_experts_;
  std::vector<Index> counts_;  // [n_layers, n_experts]
};

}  // namespace mixtral
