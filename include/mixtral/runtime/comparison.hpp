// How far a model is from a reference on given texts, in two respects: the probabilities of the next token, and the
// experts that the router chooses. Made for a model and its quantised copy; whatever formats the two have.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "mixtral/core/executor.hpp"
#include "mixtral/model/weights.hpp"
#include "mixtral/ops/kernel_table.hpp"
#include "mixtral/runtime/session.hpp"

namespace mixtral {

// One position whose next token is known. In nats, from softmax in double.
struct ComparedPosition {
  Index position = 0;        // in its sequence, from 0: of the last token read
  double kl = 0;             // KL(reference || model) of the next token's distribution; never below 0
  double reference_nll = 0;  // -log of the probability that each model gives the token that follows
  double model_nll = 0;
  bool same_top1 = false;  // both have the same likeliest token; of equally likely ones the lowest id counts

  bool operator==(const ComparedPosition&) const = default;
};

// One token's choice of experts in one layer.
//
// `margin` says how close the reference was to another choice: the gap between the k-th and the (k+1)-th largest of
// its router logits, the last expert that is in and the first that is out. A change of the logits can change the set
// only if it moves those two towards each other by at least the margin. It is 0 where every expert is chosen.
struct ComparedChoice {
  float margin = 0;
  bool same_set = false;    // the same k experts, in any order
  bool same_first = false;  // the same expert with the largest weight

  bool operator==(const ComparedChoice&) const = default;
};

// logits [vocab_size] each, finite. `position` stays 0.
ComparedPosition compare_logits(std::span<const float> reference, std::span<const float> model, TokenId target);

// reference_logits [n_experts]: the reference's router; experts [k], the largest logit first.
ComparedChoice compare_choices(std::span<const float> reference_logits, std::span<const ExpertId> reference_experts,
                               std::span<const ExpertId> model_experts);

// What many values look like. A percentile is by nearest rank: the smallest of the values which at least that share
// of them does not exceed. The median is the 50th. All 0 where there are no values.
//
// What other texts of the same kind would give, were the values independent: `mean_error` is the standard error of the
// mean; the true 99th percentile is between p99_low and p99_high in 95 of 100 cases (binomial ranks, as a normal
// distribution; p99_high is the largest value where there are too few).
struct Distribution {
  Index n = 0;
  double mean = 0, median = 0, p90 = 0, p99 = 0, max = 0;
  double mean_error = 0, p99_low = 0, p99_high = 0;
};
Distribution distribution_of(std::vector<double> values);

// Of some (token, layer).
struct GatingStability {
  Index n = 0, n_same_set = 0, n_same_first = 0;
  Distribution margin_where_same, margin_where_differing;  // by same_set

  // Shares; 1 where nothing was compared.
  double same_set() const noexcept { return share(n_same_set); }
  double same_first() const noexcept { return share(n_same_first); }

 private:
  double share(Index count) const noexcept { return n == 0 ? 1 : static_cast<double>(count) / static_cast<double>(n); }
};

struct ComparisonResult {
  Index n_inputs = 0;   // tokens read
  Index n_targets = 0;  // positions compared; without any, all figures of the next token are 0
  // Mean negative log-likelihood of the targets in nats; the perplexity is its exponential.
  double reference_cross_entropy = 0, model_cross_entropy = 0;
  // Standard error of their difference: of the mean of the differences at each position, taken as independent.
  double difference_error = 0;
  Distribution kl;
  Index n_same_top1 = 0;
  GatingStability gating;               // all layers together
  std::vector<GatingStability> layers;  // [n_layers]
};

// KL over the context: positions [begin, end) of all sequences. Buckets without a position have kl.n == 0.
struct PositionBucket {
  Index begin = 0, end = 0;
  Distribution kl;
};
// At most `n_buckets` of the same width, up to the last position that occurs.
std::vector<PositionBucket> kl_by_position(std::span<const ComparedPosition> positions, Index n_buckets);

struct ComparisonOptions {
  DType reference_kv_dtype = SessionOptions{}.kv_dtype, kv_dtype = SessionOptions{}.kv_dtype;
  Index chunk = 256;  // tokens of a pass
};

// Adds up over sequences. Both models read them side by side, `chunk` tokens at a time, so that no more than one
// chunk's logits of each are held; per position and per (token, layer) it keeps the few numbers above. Both models must
// outlive it. No figure depends on their executors or on `chunk`.
class Comparison {
 public:
  // Reports the tokens of the running sequence that are done.
  using Progress = std::function<void(Index done)>;

  // Throws Error(kInvalidArgument) with both numbers unless both have the same vocab_size, n_layers, n_experts and
  // n_experts_per_tok, and if chunk < 1.
  Comparison(const LoadedModel& reference, const LoadedModel& model, const ComparisonOptions& options = {});

  // The longest sequence: the shorter one of the two contexts.
  Index max_positions() const noexcept;

  // One sequence from position 0: targets[i] is what should follow inputs[0..i]; at most as many targets as inputs.
  // Throws what Session::feed and Session::eval throw, and Error(kInvalidArgument) if a logit is not finite. Then
  // nothing of the sequence is counted.
  void run(std::span<const TokenId> inputs, std::span<const TokenId> targets, const Progress& progress = {});

  // In the order in which they were read.
  std::span<const ComparedPosition> positions() const noexcept { return positions_; }
  std::span<const ComparedChoice> choices(Index layer) const noexcept {
    return choices_[static_cast<std::size_t>(layer)];
  }
  ComparisonResult result() const;

 private:
  class Chunk;

  void require_sequence(std::span<const TokenId> inputs, std::span<const TokenId> targets) const;
  void truncate(std::size_t n_positions, std::size_t n_inputs) noexcept;

  const LoadedModel& reference_;
  const LoadedModel& model_;
  ComparisonOptions options_;
  std::vector<ComparedPosition> positions_;
  std::vector<std::vector<ComparedChoice>> choices_;  // [n_layers][tokens read]
};

}  // namespace mixtral
