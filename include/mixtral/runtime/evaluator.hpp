// How well a model predicts given texts: cross-entropy, load balance, expert use.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "mixtral/moe/load_balancing_loss.hpp"
#include "mixtral/runtime/routing_stats.hpp"
#include "mixtral/runtime/session.hpp"

namespace mixtral {

// Everything that one sequence left on its way through the model; T inputs.
struct SequenceTrace {
  struct Layer {
    std::vector<float> output;          // [T, dim]: residual stream after the layer
    std::vector<float> router_logits;   // [T, n_experts]
    std::vector<ExpertId> expert_ids;   // [T, k]
    std::vector<float> expert_weights;  // [T, k]
  };
  std::vector<float> embed;       // [T, dim]
  std::vector<Layer> layers;      // [n_layers]
  std::vector<float> final_norm;  // [T, dim]
  std::vector<float> logits;      // [T, vocab_size]
  std::vector<float> token_nll;   // [number of targets]
};

// Adds up over sequences. The model must outlive it.
class Evaluator {
 public:
  // Reports the tokens of the running sequence that are done.
  using Progress = std::function<void(Index done)>;

  // kv_dtype as in SessionOptions.
  explicit Evaluator(const LoadedModel& model, DType kv_dtype = SessionOptions{}.kv_dtype);

  // One sequence from position 0: targets[i] is what should follow inputs[0..i]; at most as many targets as
  // inputs. Throws what Session::feed and Session::eval throw; the totals are then unspecified.
  void run(std::span<const TokenId> inputs, std::span<const TokenId> targets, SequenceTrace* trace = nullptr,
           const Progress& progress = {});

  Index n_targets() const noexcept { return n_targets_; }
  // Mean negative log-likelihood of the targets in nats; nothing without targets.
  std::optional<double> cross_entropy() const noexcept;
  double load_balancing_loss() const noexcept { return balance_.value(); }
  const RoutingStats& routing() const noexcept { return routing_; }

 private:
  class Recorder;

  const LoadedModel& model_;
  DType kv_dtype_;
  RoutingStats routing_;
  moe::LoadBalancingLoss balance_;
  Index n_targets_ = 0;
  double nll_ = 0;
};

}  // namespace mixtral
