// Groups one layer's (token, expert) choices by expert, so that each expert runs once over a dense block of
// rows.
#pragma once

#include <limits>
#include <span>
#include <vector>

#include "mixtral/core/tensor.hpp"

namespace mixtral {

// A place of a row's choices that is not used.
inline constexpr ExpertId kNoExpert = std::numeric_limits<ExpertId>::min();

// Expert e owns rows [offset(e), offset(e + 1)). Rows of one expert keep token order, so a plan depends on the
// choices alone.
class DispatchPlan {
 public:
  // `experts` [n_tokens, top_k] as the router chose them; kNoExpert: no choice. A counting sort, O(n_tokens * top_k +
  // n_experts).
  // Reuses capacity: a steady decode loop does not allocate. Throws Error(kInvalidArgument) on an id outside
  // [0, n_experts), and std::bad_alloc; the plan is then empty.
  void build(TensorView<const ExpertId, 2> experts, Index n_experts) {
    const Index top_k = experts.dim(1), n_pairs = experts.dim(0) * top_k;
    clear();
    require(n_experts >= 0, "dispatch plan: ", n_experts, " experts");
    offsets_.assign(static_cast<std::size_t>(n_experts) + 1, 0);
    try {
      row_of_.resize(static_cast<std::size_t>(n_pairs));
      tokens_.resize(static_cast<std::size_t>(count(experts, n_experts)));
    } catch (...) {
      clear();
      throw;
    }
    for (std::size_t e = 1; e < offsets_.size(); ++e) offsets_[e] += offsets_[e - 1];
    // offsets_[e] is where expert e begins; it moves while rows are handed out, and ends where e + 1 begins.
    for (Index pair = 0; pair < n_pairs; ++pair) {
      const ExpertId e = experts.row(pair / top_k)[pair % top_k];
      Index& row = row_of_[static_cast<std::size_t>(pair)];
      row = e == kNoExpert ? -1 : offsets_[static_cast<std::size_t>(e)]++;
      if (row >= 0) tokens_[static_cast<std::size_t>(row)] = pair / top_k;
    }
    for (std::size_t e = offsets_.size() - 1; e > 0; --e) offsets_[e] = offsets_[e - 1];
    offsets_[0] = 0;
  }

  Index n_experts() const noexcept { return offsets_.empty() ? 0 : static_cast<Index>(offsets_.size()) - 1; }
  Index n_rows() const noexcept { return static_cast<Index>(tokens_.size()); }
  Index offset(Index e) const noexcept { return offsets_[static_cast<std::size_t>(e)]; }
  Index rows_of(Index e) const noexcept { return offset(e + 1) - offset(e); }
  // The token of each row, grouped by expert.
  std::span<const Index> tokens() const noexcept { return tokens_; }
  std::span<const Index> tokens_of(Index e) const noexcept {
    return std::span(tokens_).subspan(static_cast<std::size_t>(offset(e)), static_cast<std::size_t>(rows_of(e)));
  }
  // The row that holds the i-th choice of token t; -1: there is none.
  Index row_of(Index t, Index i, Index top_k) const noexcept {
    return row_of_[static_cast<std::size_t>(t * top_k + i)];
  }

 private:
  void clear() noexcept {
    offsets_.clear();
    tokens_.clear();
    row_of_.clear();
  }
  // All choices; those of each expert in offsets_.
  Index count(TensorView<const ExpertId, 2> experts, Index n_experts) {
    Index all = 0;
    for (Index t = 0; t < experts.dim(0); ++t) {
      for (const ExpertId e : experts.row_span(t)) {
        if (e == kNoExpert) continue;
        ++all;
        require(e >= 0 && e < n_experts, "dispatch plan: token ", t, " chose expert ", e, " of ", n_experts);
        ++offsets_[static_cast<std::size_t>(e) + 1];
      }
    }
    return all;
  }

  std::vector<Index> offsets_;  // [n_experts + 1]
  std::vector<Index> tokens_;   // [choices], grouped by expert
  std::vector<Index> row_of_;   // [n_tokens * top_k], by token and choice
};

}  // namespace mixtral
