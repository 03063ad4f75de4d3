// What a step leaves behind besides logits: counts of the chosen experts and, if asked for, each token's route. A step
// that fails leaves nothing.
#pragma once

#include <algorithm>
#include <mutex>
#include <span>
#include <vector>

#include "mixtral/runtime/routing_stats.hpp"
#include "mixtral/runtime/session.hpp"
#include "mixtral/runtime/turn_lock.hpp"

namespace mixtral::capi {

// Choices of all sessions of a ctx.
class RoutingTotals {
 public:
  explicit RoutingTotals(const ModelConfig& config) : stats_(config) {}

  void add(const RoutingStats& more) {
    const std::lock_guard guard(lock_);
    stats_.add(more);
  }
  void reset() {
    const std::lock_guard guard(lock_);
    stats_.reset();
  }
  RoutingStats read() const {
    const std::lock_guard guard(lock_);
    return stats_;
  }

 private:
  mutable TurnLock lock_;  // knows of fork()
  RoutingStats stats_;
};

class RouteRecorder final : public ForwardObserver {
 public:
  // Observes `session`; all references must outlive it.
  RouteRecorder(const Session& session, bool record, RoutingTotals& totals)
      : session_(session),
        totals_(totals),
        n_layers_(session.model().config.n_layers),
        per_layer_(session.model().config.n_experts_per_tok),
        record_(record),
        stats_(session.model().config) {}
  // Begins with another recorder's routes.
  RouteRecorder(const Session& session, const RouteRecorder& other)
      : RouteRecorder(session, other.record_, other.totals_) {
    first_ = other.first_;
    experts_ = other.experts_;
    weights_ = other.weights_;
  }

  // Before and after every call that evaluates: counts what has been computed, forgets what an eval that failed left.
  void settle() {
    if (session_.length() > settled_) totals_.add(stats_);
    stats_.reset();
    settled_ = session_.length();
    truncate(settled_);
  }

  void on_embedding(TensorView<const float, 2> x) override {
    if (session_.length() != settled_) settle();  // in this call an eval ended, or the tokens were set
    base_ = static_cast<Index>(experts_.size());
    if (!record_) return;
    const auto more = static_cast<std::size_t>(x.dim(0) * route_size());
    experts_.resize(experts_.size() + more);
    weights_.resize(weights_.size() + more);
  }
  void on_routing(Index layer, const moe::RoutingView& routing) override {
    stats_.on_routing(layer, routing);
    if (!record_) return;
    for (Index t = 0; t < routing.experts.dim(0); ++t) {
      const auto at = base_ + (t * n_layers_ + layer) * per_layer_;
      std::copy_n(routing.experts.row(t), per_layer_, experts_.begin() + at);
      std::copy_n(routing.weights.row(t), per_layer_, weights_.begin() + at);
    }
  }

  // Forgets the routes of tokens from `length` on.
  void truncate(Index length) noexcept {
    first_ = std::min(first_, length);
    const auto kept = static_cast<std::size_t>((length - first_) * route_size());
    if (kept >= experts_.size()) return;
    experts_.resize(kept);
    weights_.resize(kept);
  }
  // Forgets the routes of tokens before `length`, the only ones there are.
  void forget(Index length) noexcept {
    first_ = length;
    experts_ = {};
    weights_ = {};
  }

  Index route_size() const noexcept { return n_layers_ * per_layer_; }
  // [n_layers, n_experts_per_tok]; empty: not recorded.
  std::span<const ExpertId> experts(Index position) const noexcept { return route(experts_, position); }
  std::span<const float> weights(Index position) const noexcept { return route(weights_, position); }
  bool records() const noexcept { return record_; }

 private:
  template <class T>
  std::span<const T> route(const std::vector<T>& all, Index position) const noexcept {
    const Index n = static_cast<Index>(all.size()) / route_size();
    if (position < first_ || position - first_ >= n) return {};
    return std::span(all).subspan(static_cast<std::size_t>((position - first_) * route_size()),
                                  static_cast<std::size_t>(route_size()));
  }

  const Session& session_;
  RoutingTotals& totals_;
  Index n_layers_, per_layer_;
  bool record_;
  RoutingStats stats_;             // since settle()
  Index settled_ = 0;              // computed tokens at that time
  Index first_ = 0;                // position of the first recorded route
  Index base_ = 0;                 // where those of the running pass begin
  std::vector<ExpertId> experts_;  // [tokens, n_layers, n_experts_per_tok]
  std::vector<float> weights_;     // the same
};

}  // namespace mixtral::capi
