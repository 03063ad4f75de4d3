#include "mixtral/moe/router.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "support/budgets.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace mixtral;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Routing {
  Routing(Index n, Index n_experts, Index k)
      : logits(Shape<2>{{n, n_experts}}), weights(Shape<2>{{n, k}}), experts(Shape<2>{{n, k}}) {}
  moe::RouterOutput output() { return {logits.view(), experts.view(), weights.view()}; }

  Matrix<float> logits, weights;
  Matrix<ExpertId> experts;
};

// Logits with many ties, some of them unusable.
void fill(test::Random& random, Matrix<float>& logits) {
  for (float& x : logits.span()) {
    x = random.chance(0.5) ? static_cast<float>(random.index(-3, 3)) : static_cast<float>(random.uniform(-3, 3));
    if (random.chance(0.03)) x = random.chance(0.5) ? kNan : (random.chance(0.5) ? kInfinity : -kInfinity);
  }
}

bool equal(const Matrix<ExpertId>& a, const Matrix<ExpertId>& b) {
  return std::equal(a.span().begin(), a.span().end(), b.span().begin(), b.span().end());
}

}  // namespace

TEST_CASE("routing agrees with the double oracle for any number of experts and choices") {
  test::Random random(61);
  for (const Index n_experts : {1, 2, 3, 7, 8, 9, 16, 17, 64, 70}) {
    for (const Index k : {1, 2, 3, 8, 70}) {
      if (k > n_experts) continue;
      CAPTURE(n_experts);
      CAPTURE(k);
      Routing r(20, n_experts, k);
      for (float& x : r.logits.span()) x = static_cast<float>(random.index(-40, 40)) / 8;
      Matrix<ExpertId> want_ids(r.experts.shape());
      Matrix<double> want_weights(r.weights.shape());
      const auto wide = test::in_double(r.logits);
      reference::route(wide.cview(), {}, want_ids.view(), want_weights.view());
      test::for_each_context([&](const OpContext& ctx) {
        moe::select_experts(ctx, {}, r.output());
        CHECK(equal(r.experts, want_ids));
        test::check_close(r.weights, want_weights, test::kFewRoundings);
      });
    }
  }
}

TEST_CASE("the path for two of eight gives the bits of the general path, ties and unusable logits included") {
  test::Random random(62);
  Routing r(500, 8, 2);
  fill(random, r.logits);
  for (Index t = 0; t < 500; ++t) r.logits.row(t)[0] = 0.5f, r.logits.row(t)[7] = 0.5f;  // always two usable
  test::for_each_table([&](const KernelTable& table) {
    test::SerialContext c(table);
    moe::select_experts(c.op, {}, r.output());
    Routing general(500, 8, 2);
    for (Index t = 0; t < 500; ++t) {
      CHECK(moe::detail::top_k(r.logits.view().row_span(t), general.experts.view().row_span(t),
                               general.weights.view().row_span(t)));
      table.softmax(general.weights.row(t), 2);
    }
    CHECK(equal(r.experts, general.experts));
    CHECK(test::same_bits(r.weights, general.weights));
  });
}

TEST_CASE("ties go to the lower id") {
  test::for_each_context([](const OpContext& ctx) {
    for (const Index n_experts : {8, 9}) {
      Routing r(1, n_experts, 2);
      moe::select_experts(ctx, {}, r.output());
      CHECK(r.experts.row(0)[0] == 0);
      CHECK(r.experts.row(0)[1] == 1);
      CHECK(r.weights.row(0)[0] == 0.5f);
      r.logits.row(0)[5] = r.logits.row(0)[3] = 1;
      moe::select_experts(ctx, {}, r.output());
      CHECK(r.experts.row(0)[0] == 3);
      CHECK(r.experts.row(0)[1] == 5);
    }
  });
}

TEST_CASE("a masked expert is never chosen, the others as if it were not there") {
  test::Random random(63);
  for (const Index n_experts : {8, 12}) {
    for (const Index k : {1, 2, 3}) {
      Routing r(50, n_experts, k);
      for (float& x : r.logits.span()) x = static_cast<float>(random.uniform(-2, 2));
      std::vector<std::uint8_t> mask(static_cast<std::size_t>(n_experts), 1);
      mask[1] = mask[6] = mask[7] = 0;
      Matrix<ExpertId> want_ids(r.experts.shape());
      Matrix<double> want_weights(r.weights.shape());
      const auto wide = test::in_double(r.logits);
      reference::route(wide.cview(), mask, want_ids.view(), want_weights.view());
      test::for_each_context([&](const OpContext& ctx) {
        moe::select_experts(ctx, mask, r.output());
        CHECK(equal(r.experts, want_ids));
        test::check_close(r.weights, want_weights, test::kFewRoundings);
      });
    }
  }
}

TEST_CASE("too few usable experts are an error that names the token and the numbers") {
  test::for_each_context([](const OpContext& ctx) {
    for (const Index n_experts : {8, 5}) {
      Routing r(3, n_experts, 2);
      std::vector<std::uint8_t> mask(static_cast<std::size_t>(n_experts), 0);
      mask[4] = 1;
      CHECK(test::names(test::error_of([&] { moe::select_experts(ctx, mask, r.output()); }),
                        str("token 0 has fewer than 2 of ", n_experts)));
      for (const float bad : {kNan, kInfinity, -kInfinity}) {
        std::fill_n(r.logits.row(2), n_experts, bad);
        r.logits.row(2)[1] = 1;
        CHECK(test::names(test::error_of([&] { moe::select_experts(ctx, {}, r.output()); }), "token 2"));
      }
    }
  });
}

TEST_CASE("the gate's logits are a linear product of any weight type") {
  test::Random random(64);
  const auto x = random.matrix<float>(6, 21);
  const auto gate = random.matrix<bf16>(8, 21);
  test::for_each_context([&](const OpContext& ctx) {
    Routing r(6, 8, 2), same(6, 8, 2);
    moe::route(ctx, gate.view(), x.view(), {}, r.output());
    ops::linear(ctx, MatrixView(gate.view()), x.view(), same.logits.view());
    moe::select_experts(ctx, {}, same.output());
    CHECK(test::same_bits(r.logits, same.logits));
    CHECK(equal(r.experts, same.experts));
  });
}

TEST_CASE("the router refuses shapes that do not fit") {
  const test::SerialContext c;
  Routing r(3, 8, 2), other(4, 8, 2), one(3, 1, 2), none(3, 8, 0);
  const std::vector<std::uint8_t> mask(7, 1);
  test::error_of([&] { moe::select_experts(c.op, mask, r.output()); });
  test::error_of([&] { moe::select_experts(c.op, {}, {r.logits.view(), other.experts.view(), r.weights.view()}); });
  test::error_of([&] { moe::select_experts(c.op, {}, {r.logits.view(), r.experts.view(), other.weights.view()}); });
  test::error_of([&] { moe::select_experts(c.op, {}, one.output()); });
  test::error_of([&] { moe::select_experts(c.op, {}, none.output()); });
  Routing empty(0, 8, 2);
  CHECK_NOTHROW(moe::select_experts(c.op, {}, empty.output()));
}
