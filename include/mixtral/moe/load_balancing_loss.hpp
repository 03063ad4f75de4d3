// The auxiliary loss that keeps experts evenly used (Shazeer et al. 2017; Fedus et al. 2021), as the
// transformers library computes it for Mixtral.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "mixtral/core/tensor.hpp"

namespace mixtral::moe {

// With the rows of all layers stacked: f[k, e] = share of rows whose k-th choice is e, p[e] = mean softmax
// probability of e; loss = n_experts * sum over k and e of f[k, e] * p[e]. An even router gives top_k.
// logits [rows, n_experts], experts [rows, top_k]. Sums are kept in double. 0 for no rows.
// Throws Error(kInvalidArgument) on shapes that do not fit or an id outside [0, n_experts). T float or double.
template <class T>
double load_balancing_loss(TensorView<const T, 2> logits, TensorView<const ExpertId, 2> experts) {
  require(logits.dim(0) == experts.dim(0), "load_balancing_loss: logits are ", shape_text(logits.shape()), ", experts ",
          shape_text(experts.shape()));
  const Index rows = logits.dim(0), n_experts = logits.dim(1);
  if (rows == 0) return 0;
  require(n_experts > 0, "load_balancing_loss: no experts");
  // The sum over k first: how often e was chosen at all.
  std::vector<double> chosen(static_cast<std::size_t>(n_experts)), probability(static_cast<std::size_t>(n_experts));
  std::vector<double> e(static_cast<std::size_t>(n_experts));
  for (Index t = 0; t < rows; ++t) {
    for (const ExpertId id : experts.row_span(t)) {
      require(id >= 0 && id < n_experts, "load_balancing_loss: expert ", id, " of ", n_experts);
      chosen[static_cast<std::size_t>(id)] += 1;
    }
    double largest = logits.row(t)[0], total = 0;
    for (const T x : logits.row_span(t)) largest = std::max(largest, static_cast<double>(x));
    for (std::size_t i = 0; i < e.size(); ++i)
      total += e[i] = std::exp(static_cast<double>(logits.row(t)[i]) - largest);
    for (std::size_t i = 0; i < e.size(); ++i) probability[i] += e[i] / total;
  }
  double loss = 0;
  for (std::size_t i = 0; i < e.size(); ++i) loss += chosen[i] * probability[i];
  return loss * static_cast<double>(n_experts) / (static_cast<double>(rows) * static_cast<double>(rows));
}

}  // namespace mixtral::moe
