// The auxiliary loss that keeps experts evenly used (Shazeer et al. 2017; Fedus et al. 2021), as the
// transformers library computes it for Mixtral.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "mixtral/core/float_environment.hpp"
#include "mixtral/core/tensor.hpp"
#include "mixtral/moe/dispatch_plan.hpp"

namespace mixtral::moe {

// With the rows of all layers and steps stacked: f[k, e] = share of rows whose k-th choice is e, p[e] = mean
// softmax probability of e; loss = n_experts * sum over k and e of f[k, e] * p[e]. An even router gives top_k.
// Sums are kept in double.
class LoadBalancingLoss {
 public:
  // Throws Error(kInvalidArgument) unless n_experts > 0.
  explicit LoadBalancingLoss(Index n_experts)
      : chosen_(n_experts > 0 ? static_cast<std::size_t>(n_experts) : 0), probability_(chosen_), row_(chosen_) {
    require(n_experts > 0, "load-balancing loss: ", n_experts, " experts");
  }

  // logits [n, n_experts], experts [n, top_k], kNoExpert: no choice. T float or double. Throws Error(kInvalidArgument)
  // on shapes or ids that do not fit; then nothing has been counted.
  template <class T>
  void add(TensorView<const T, 2> logits, TensorView<const ExpertId, 2> experts) {
    const auto n_experts = static_cast<Index>(row_.size());
    require(logits.dim(0) == experts.dim(0) && logits.dim(1) == n_experts, "load-balancing loss: logits are ",
            logits.shape(), ", experts ", experts.shape(), ", for ", n_experts, " experts");
    for (Index t = 0; t < experts.dim(0); ++t) {
      for (const ExpertId id : experts.row_span(t)) {
        require(id == kNoExpert || (id >= 0 && id < n_experts), "load-balancing loss: expert ", id, " of ", n_experts);
      }
    }
    const FloatScope floats;
    for (Index t = 0; t < logits.dim(0); ++t) {
      for (const ExpertId id : experts.row_span(t)) {
        if (id != kNoExpert) chosen_[static_cast<std::size_t>(id)] += 1;  // f needs no k
      }
      const auto row = logits.row_span(t);
      const auto largest = static_cast<double>(*std::max_element(row.begin(), row.end()));
      double total = 0;
      for (std::size_t e = 0; e < row_.size(); ++e) total += row_[e] = std::exp(static_cast<double>(row[e]) - largest);
      for (std::size_t e = 0; e < row_.size(); ++e) probability_[e] += row_[e] / total;
    }
    rows_ += static_cast<double>(logits.dim(0));
  }

  // 0 before the first row.
  double value() const noexcept {
    const FloatScope floats;
    double sum = 0;
    for (std::size_t e = 0; e < chosen_.size(); ++e) sum += chosen_[e] * probability_[e];
    return rows_ == 0 ? 0 : sum * static_cast<double>(chosen_.size()) / (rows_ * rows_);
  }

 private:
  std::vector<double> chosen_, probability_, row_;  // [n_experts]
  double rows_ = 0;
};

}  // namespace mixtral::moe
