#include "mixtral/moe/dispatch_plan.hpp"

#include <doctest/doctest.h>

#include "support/allocations.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace mixtral;

namespace {

Matrix<ExpertId> choices(test::Random& random, Index n, Index k, Index n_experts) {
  Matrix<ExpertId> out(Shape<2>{{n, k}});
  for (ExpertId& e : out.span()) e = static_cast<ExpertId>(random.index(0, n_experts - 1));
  return out;
}

// Against the definition: for each expert in turn, the tokens that chose it, in order.
void check_plan(const moe::DispatchPlan& plan, const Matrix<ExpertId>& experts, Index n_experts) {
  REQUIRE(plan.n_experts() == n_experts);
  REQUIRE(plan.n_rows() == experts.size());
  Index row = 0;
  for (Index e = 0; e < n_experts; ++e) {
    CHECK(plan.offset(e) == row);
    for (Index t = 0; t < experts.dim(0); ++t) {
      for (Index i = 0; i < experts.dim(1); ++i) {
        if (experts.row(t)[i] != e) continue;
        CHECK(plan.tokens()[static_cast<std::size_t>(row)] == t);
        CHECK(plan.row_of(t, i) == row);
        ++row;
      }
    }
    CHECK(plan.rows_of(e) == row - plan.offset(e));
    CHECK(static_cast<Index>(plan.tokens_of(e).size()) == plan.rows_of(e));
  }
}

}  // namespace

TEST_CASE("a plan groups tokens by expert, in token order, whatever was planned before") {
  test::Random random(65);
  moe::DispatchPlan plan;
  CHECK(plan.n_experts() == 0);
  CHECK(plan.n_rows() == 0);
  for (int round = 0; round < 60; ++round) {
    const Index n = random.index(0, 20), k = random.index(1, 4), n_experts = random.index(1, 9);
    const auto experts = choices(random, n, k, n_experts);
    plan.build(experts.view(), n_experts);
    check_plan(plan, experts, n_experts);
  }
}

TEST_CASE("all tokens may go to one expert and none to another") {
  Matrix<ExpertId> experts(Shape<2>{{6, 1}});
  std::fill_n(experts.data(), 6, 2);
  moe::DispatchPlan plan;
  plan.build(experts.view(), 4);
  check_plan(plan, experts, 4);
  CHECK(plan.rows_of(2) == 6);
  CHECK(plan.rows_of(0) == 0);
  CHECK(plan.tokens_of(3).empty());
}

TEST_CASE("an invalid id is named, and the plan is then empty") {
  moe::DispatchPlan plan;
  Matrix<ExpertId> experts(Shape<2>{{3, 2}});
  plan.build(experts.view(), 4);
  for (const ExpertId bad : {-1, 4, 2147483647}) {
    experts.row(1)[1] = bad;
    CHECK(test::names(test::error_of([&] { plan.build(experts.view(), 4); }),
                      str("token 1 chose expert ", bad, " of 4")));
    CHECK(plan.n_rows() == 0);
    CHECK(plan.n_experts() == 0);
  }
  test::error_of([&] { plan.build(experts.view(), -1); });
  test::error_of([&] { plan.build(experts.view(), 0); });
  plan.build(Matrix<ExpertId>(Shape<2>{{0, 2}}).view(), 0);
  CHECK(plan.n_rows() == 0);
}

TEST_CASE("a refused allocation leaves an empty plan, a steady state allocates nothing") {
  test::Random random(66);
  const auto experts = choices(random, 50, 2, 8);
  moe::DispatchPlan plan;
  for (std::size_t nth = 0; nth < 3; ++nth) {
    moe::DispatchPlan fresh;
    const test::FailingAllocation failure(nth);
    CHECK_THROWS_AS(fresh.build(experts.view(), 8), std::bad_alloc);
    CHECK(fresh.n_rows() == 0);
    CHECK(fresh.n_experts() == 0);
  }
  plan.build(experts.view(), 8);
  const std::size_t before = test::allocations();
  for (int i = 0; i < 10; ++i) plan.build(experts.view().rows(0, 50 - i), 8);
  CHECK(test::allocations() == before);
}

TEST_CASE("rows of two versions of an expert stand apart, in token order each") {
  test::Random random(97);
  for (const Index n : {0, 1, 40}) {
    const Matrix<ExpertId> experts = choices(random, n, 3, 5);
    Matrix<ExpertVersion> versions(experts.shape());
    for (ExpertVersion& v : versions.span()) v = static_cast<ExpertVersion>(random.index(0, 2));
    moe::DispatchPlan plan;
    plan.build(experts.view(), 5, versions.view());
    Index row = 0;
    std::size_t n_groups = 0;
    for (ExpertId e = 0; e < 5; ++e) {
      CHECK(plan.offset(e) == row);
      for (ExpertVersion v = 0; v < 3; ++v) {
        const Index begin = row;
        for (Index t = 0; t < n; ++t) {
          for (Index i = 0; i < 3; ++i) {
            if (experts.row(t)[i] != e || versions.row(t)[i] != v) continue;
            CHECK(plan.tokens()[static_cast<std::size_t>(row)] == t);
            CHECK(plan.row_of(t, i) == row++);
          }
        }
        if (row == begin) continue;
        REQUIRE(n_groups < plan.groups().size());
        const moe::DispatchPlan::Group& group = plan.groups()[n_groups++];
        CHECK(group.key == moe::ExpertKey{e, v});
        CHECK(group.begin == begin);
        CHECK(group.count == row - begin);
        CHECK(plan.tokens_of(group).data() == plan.tokens().data() + begin);
      }
    }
    CHECK(n_groups == plan.groups().size());
    CHECK(plan.n_rows() == row);
  }
  moe::DispatchPlan plan;
  const Matrix<ExpertId> experts(Shape<2>{{4, 2}});
  const Matrix<ExpertVersion> fewer(Shape<2>{{3, 2}});
  CHECK(test::names(test::error_of([&] { plan.build(experts.view(), 5, fewer.view()); }), "[3, 2]"));
  CHECK(plan.n_rows() == 0);
}
