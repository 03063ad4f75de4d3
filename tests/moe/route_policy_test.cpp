#include "mixtral/moe/route_policy.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace mixtral;

namespace {

constexpr Index kLayer = 2;

struct Routing {
  Routing(Index n, Index n_experts, Index k)
      : logits(Shape<2>{{n, n_experts}}),
        weights(Shape<2>{{n, k}}),
        experts(Shape<2>{{n, k}}),
        versions(Shape<2>{{n, k}}) {}
  moe::RouterOutput output() { return {logits.view(), experts.view(), weights.view(), versions.view()}; }
  Matrix<float> logits, weights;
  Matrix<ExpertId> experts;
  Matrix<ExpertVersion> versions;
};

std::vector<RowInfo> rows_of(std::initializer_list<const RoutingIdentity*> identities) {
  std::vector<RowInfo> rows;
  for (const RoutingIdentity* identity : identities) rows.push_back({0, static_cast<Index>(rows.size()), identity});
  return rows;
}

using Choices = std::vector<std::pair<ExpertId, double>>;

// Softmax over the first n of these, best first.
Choices softmax(const std::vector<std::pair<double, ExpertId>>& best, std::size_t n) {
  double sum = 0;
  for (std::size_t i = 0; i < n; ++i) sum += std::exp(-best[i].first);
  Choices out;
  for (std::size_t i = 0; i < n; ++i) out.push_back({best[i].second, std::exp(-best[i].first) / sum});
  return out;
}

// One row by the rules, spelled out in double.
Choices oracle(const float* logits, Index n_experts, Index k, const RoutingRules& r) {
  std::vector<std::pair<double, ExpertId>> best;  // minus the logit
  for (ExpertId e = 0; e < n_experts; ++e) {
    const ExpertPlace here{kLayer, e};
    if (std::find(r.masked.begin(), r.masked.end(), here) != r.masked.end()) continue;
    float logit = logits[e];
    for (const auto& [place, bias] : r.biases) logit += place == here ? bias : 0;
    best.push_back({-static_cast<double>(logit), e});
  }
  std::sort(best.begin(), best.end());
  const Index wanted = std::min<Index>(r.experts_per_token > 0 ? r.experts_per_token : k, std::ssize(best));
  const Choices all = softmax(best, static_cast<std::size_t>(wanted));
  const auto kept = std::find_if(all.begin() + 1, all.end(),
                                 [&](const auto& choice) { return choice.second < static_cast<double>(r.min_weight); });
  return softmax(best, static_cast<std::size_t>(kept - all.begin()));
}

}  // namespace

TEST_CASE("rows with rules are chosen for by them, and the others beside them as ever") {
  test::Random random(301);
  for (const Index n_experts : {8, 5}) {
    std::vector<RoutingIdentity> identities;
    for (int i = 0; i < 40; ++i) {
      RoutingRules r;
      for (ExpertId e = 0; e < n_experts; ++e) {
        if (random.chance(0.2) && e > 0) r.masked.push_back({kLayer, e});
        if (random.chance(0.3)) r.masked.push_back({kLayer + 1, e});  // not here
        if (random.chance(0.3)) r.biases.push_back({{kLayer, e}, static_cast<float>(random.uniform(-2, 2))});
      }
      if (random.chance(0.5)) r.experts_per_token = static_cast<std::int32_t>(random.index(1, 3));
      if (random.chance(0.5)) r.min_weight = static_cast<float>(random.uniform(0, 0.5));
      identities.emplace_back(r);
    }
    test::for_each_context([&](const OpContext& op) {
      Routing r(41, n_experts, 3), alone(41, n_experts, 2);
      r.logits = random.matrix<float>(41, n_experts, -3, 3);
      std::copy_n(r.logits.data(), r.logits.size(), alone.logits.data());
      std::vector<RowInfo> rows(41);
      for (std::size_t t = 0; t < 40; ++t) rows[t].identity = &identities[t];
      moe::TopK(2).choose(op, kLayer, rows, r.output());
      moe::select_experts(op, {}, alone.output());
      for (Index t = 0; t < 40; ++t) {
        const Choices want = oracle(r.logits.row(t), n_experts, 2, identities[static_cast<std::size_t>(t)].rules());
        for (std::size_t i = 0; i < 3; ++i) {
          const bool used = i < want.size();
          CHECK(r.experts.row(t)[i] == (used ? want[i].first : moe::kNoExpert));
          CHECK(std::abs(static_cast<double>(r.weights.row(t)[i]) - (used ? want[i].second : 0)) < 1e-6);
        }
      }
      for (Index i = 0; i < 2; ++i) {  // the last row has no rules
        CHECK(r.experts.row(40)[i] == alone.experts.row(40)[i]);
        CHECK(r.weights.row(40)[i] == alone.weights.row(40)[i]);
      }
      CHECK(r.experts.row(40)[2] == moe::kNoExpert);
    });
  }
}

TEST_CASE("a row's versions are those of its rules for this layer, where the experts were chosen") {
  test::SerialContext c;
  const RoutingIdentity identity(RoutingRules{.versions = {{{kLayer, 1}, 5}, {{kLayer, 2}, 6}, {{kLayer + 1, 3}, 7}}});
  Routing r(2, 4, 2);
  const float logits[] = {0, 3, 1, 2, 0, 3, 1, 2};
  std::copy_n(logits, 8, r.logits.data());
  moe::TopK(2).choose(c.op, kLayer, rows_of({&identity, nullptr}), r.output());
  CHECK(r.experts.row(0)[0] == 1);
  CHECK(r.versions.row(0)[0] == 5);
  CHECK(r.experts.row(0)[1] == 3);
  CHECK(r.versions.row(0)[1] == kCurrentVersion);
  CHECK(r.versions.row(1)[0] == kCurrentVersion);
}

TEST_CASE("rules that leave a row no expert, rows without usable logits, and shapes that do not fit are refused") {
  test::SerialContext c;
  RoutingRules all;
  for (ExpertId e = 0; e < 4; ++e) all.masked.push_back({kLayer, e});
  const RoutingIdentity nobody(all), one(RoutingRules{.masked = {{kLayer, 0}}}),
      three(RoutingRules{.experts_per_token = 3}), ninth(RoutingRules{.biases = {{{kLayer, 8}, 1}}});
  Routing r(2, 4, 2);
  const auto choose = [&](Index k, const std::vector<RowInfo>& rows) {
    moe::TopK(k).choose(c.op, kLayer, rows, r.output());
  };
  CHECK(test::names(test::error_of([&] { choose(2, rows_of({&one, &nobody})); }), "token 1"));
  CHECK(test::names(test::error_of([&] { choose(2, rows_of({&one, &three})); }), "row 1 wants 3 experts in 2 places"));
  CHECK(test::names(test::error_of([&] { choose(2, rows_of({&ninth, nullptr})); }), "9 experts of 4"));
  CHECK(test::names(test::error_of([&] { choose(3, rows_of({nullptr, nullptr})); }), "row 0 wants 3"));
  CHECK(test::names(test::error_of([&] { choose(2, rows_of({&one})); }), "1 rows"));
  CHECK(test::names(test::error_of([&] { choose(1, {}); }), "0 rows"));
  choose(2, rows_of({&one, &one}));
  choose(2, {});  // nobody's rows: the model's own choice
  r.logits.row(0)[1] = r.logits.row(0)[2] = std::numeric_limits<float>::quiet_NaN();
  CHECK(test::names(test::error_of([&] { choose(2, rows_of({&one, nullptr})); }), "token 0 has fewer than 2 of 4"));
  CHECK(moe::TopK(2).places(rows_of({&one, &three}), 2) == 3);
  CHECK(moe::TopK(2).places(rows_of({&one, nullptr}), 2) == 2);
}
