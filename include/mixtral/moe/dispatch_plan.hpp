// Groups one layer's (token, expert) choices by expert, so that each expert runs once over a dense block of
// rows.
#pragma once

#include <algorithm>
#include <limits>
#include <span>
#include <vector>

#include "mixtral/core/tensor.hpp"
#include "mixtral/moe/expert_key.hpp"

namespace mixtral::moe {

// A place of a row's choices that is not used.
inline constexpr ExpertId kNoExpert = std::numeric_limits<ExpertId>::min();

// Expert e owns rows [offset(e), offset(e + 1)), of which each of its versions that was chosen has one run. Rows of a
// version keep token order, so a plan depends on the choices alone.
class DispatchPlan {
 public:
  // The rows of one version of an expert; it has at least one.
  struct Group {
    ExpertKey key;
    Index begin, count;
  };

  // `experts` [n_tokens, top_k] as the router chose them; kNoExpert: no choice. `versions` [n_tokens, top_k]; none:
  // all are the current ones. A counting sort, O(n_tokens * top_k + n_experts); versions are sorted after it.
  // Reuses capacity: a steady decode loop does not allocate. Throws Error(kInvalidArgument) on an id outside
  // [0, n_experts), and std::bad_alloc; the plan is then empty.
  void build(TensorView<const ExpertId, 2> experts, Index n_experts, TensorView<const ExpertVersion, 2> versions = {}) {
    clear();
    require(n_experts >= 0 && (versions.data() == nullptr || versions.shape() == experts.shape()),
            "dispatch plan: ", n_experts, " experts, choices are ", experts.shape(), ", versions ", versions.shape());
    try {
      top_k_ = experts.dim(1);
      sort_by_expert(experts, n_experts);
      make_groups(versions);
      for (std::size_t row = 0; row < pairs_.size(); ++row) {
        row_of_[static_cast<std::size_t>(pairs_[row])] = static_cast<Index>(row);
        tokens_[row] = pairs_[row] / top_k_;
      }
    } catch (...) {
      clear();
      throw;
    }
  }

  Index n_experts() const noexcept { return offsets_.empty() ? 0 : static_cast<Index>(offsets_.size()) - 1; }
  Index n_rows() const noexcept { return static_cast<Index>(tokens_.size()); }
  // Rising keys.
  std::span<const Group> groups() const noexcept { return groups_; }
  // All versions of an expert together.
  Index offset(Index e) const noexcept { return offsets_[static_cast<std::size_t>(e)]; }
  Index rows_of(Index e) const noexcept { return offset(e + 1) - offset(e); }
  // The token of each row, grouped by expert and version.
  std::span<const Index> tokens() const noexcept { return tokens_; }
  std::span<const Index> tokens_of(Index e) const noexcept { return tokens_in(offset(e), rows_of(e)); }
  std::span<const Index> tokens_of(const Group& group) const noexcept { return tokens_in(group.begin, group.count); }
  // The row that holds the i-th choice of token t; -1: there is none.
  Index row_of(Index t, Index i) const noexcept { return row_of_[static_cast<std::size_t>(t * top_k_ + i)]; }

 private:
  void clear() noexcept {
    offsets_.clear();
    groups_.clear();
    pairs_.clear();
    tokens_.clear();
    row_of_.clear();
  }

  std::span<const Index> tokens_in(Index begin, Index count) const noexcept {
    return std::span(tokens_).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count));
  }

  void sort_by_expert(TensorView<const ExpertId, 2> experts, Index n_experts) {
    const Index n_pairs = experts.dim(0) * top_k_;
    offsets_.assign(static_cast<std::size_t>(n_experts) + 1, 0);
    row_of_.assign(static_cast<std::size_t>(n_pairs), -1);
    const auto n_rows = static_cast<std::size_t>(count(experts, n_experts));
    pairs_.resize(n_rows);
    tokens_.resize(n_rows);
    for (std::size_t e = 1; e < offsets_.size(); ++e) offsets_[e] += offsets_[e - 1];
    // offsets_[e] is where expert e begins; it moves while rows are handed out, and ends where e + 1 begins.
    for (Index pair = 0; pair < n_pairs; ++pair) {
      const ExpertId e = experts.row(pair / top_k_)[pair % top_k_];
      if (e == kNoExpert) continue;
      pairs_[static_cast<std::size_t>(offsets_[static_cast<std::size_t>(e)]++)] = pair;
    }
    for (std::size_t e = offsets_.size() - 1; e > 0; --e) offsets_[e] = offsets_[e - 1];
    offsets_[0] = 0;
  }

  // All choices; those of each expert in offsets_[e + 1].
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

  // Runs of one version within the rows of each expert.
  void make_groups(TensorView<const ExpertVersion, 2> versions) {
    groups_.reserve(static_cast<std::size_t>(n_experts()));
    const auto version_of = [&](Index pair) {
      return versions.data() == nullptr ? kCurrentVersion : versions.row(pair / top_k_)[pair % top_k_];
    };
    for (Index e = 0; e < n_experts(); ++e) {
      const auto begin = pairs_.begin() + offset(e), end = pairs_.begin() + offset(e + 1);
      const auto by_version = [&](Index a, Index b) {
        return version_of(a) != version_of(b) ? version_of(a) < version_of(b) : a < b;
      };
      if (versions.data() != nullptr && !std::is_sorted(begin, end, by_version)) std::sort(begin, end, by_version);
      for (auto first = begin; first != end;) {
        const ExpertVersion version = version_of(*first);
        const auto last = std::find_if(first, end, [&](Index pair) { return version_of(pair) != version; });
        groups_.push_back({{static_cast<ExpertId>(e), version}, first - pairs_.begin(), last - first});
        first = last;
      }
    }
  }

  Index top_k_ = 0;
  std::vector<Index> offsets_;  // [n_experts + 1]
  std::vector<Group> groups_;   // by expert and version
  std::vector<Index> pairs_;    // [choices], of each row: token * top_k + place
  std::vector<Index> tokens_;   // [choices], of each row
  std::vector<Index> row_of_;   // [n_tokens * top_k], by token and choice
};

}  // namespace mixtral::moe
