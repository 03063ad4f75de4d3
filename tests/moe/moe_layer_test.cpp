#include "mixtral/moe/moe_layer.hpp"

#include <doctest/doctest.h>

#include <set>

#include "support/blocks.hpp"
#include "support/budgets.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/experts.hpp"

using namespace mixtral;

namespace {

struct Routing {
  Routing(Index n, Index n_experts, Index k)
      : logits(Shape<2>{{n, n_experts}}), weights(Shape<2>{{n, k}}), experts(Shape<2>{{n, k}}) {}
  moe::RouterOutput output() { return {logits.view(), experts.view(), weights.view()}; }
  Matrix<float> logits, weights;
  Matrix<ExpertId> experts;
};

// Token by token, without a plan: x[t] += sum of weight * expert(h[t]).
Matrix<double> oracle(const test::Experts& experts, const Routing& r, const Matrix<float>& h, const Matrix<float>& x) {
  Matrix<double> out = test::in_double(x);
  const auto wide_h = test::in_double(h);
  for (Index t = 0; t < h.dim(0); ++t) {
    Matrix<double> row(Shape<2>{{1, h.dim(1)}});
    std::copy_n(wide_h.row(t), h.dim(1), row.data());
    for (Index i = 0; i < r.experts.dim(1); ++i) {
      const auto y = test::expert_oracle(experts.weights[static_cast<std::size_t>(r.experts.row(t)[i])], row);
      for (Index d = 0; d < h.dim(1); ++d) out.row(t)[d] += static_cast<double>(r.weights.row(t)[i]) * y.data()[d];
    }
  }
  return out;
}

Matrix<float> copy(const Matrix<float>& x) {
  Matrix<float> out(x.shape());
  std::copy_n(x.data(), x.size(), out.data());
  return out;
}

// What the layer adds to zeros for tokens of h, two experts each.
Matrix<float> outputs_of(const OpContext& op, std::span<const moe::ExpertWeights> experts, const Matrix<float>& gate,
                         TensorView<const float, 2> h) {
  Routing r(h.dim(0), static_cast<Index>(experts.size()), 2);
  moe::route(op, gate.view(), h, {}, r.output());
  moe::DispatchPlan plan;
  Matrix<float> y(h.shape());
  moe::moe_layer(op, experts, r.output(), plan, h, y.view());
  return y;
}

}  // namespace

TEST_CASE("the layer gives the golden block: logits, choices, weights and output") {
  const test::Block block("moe_block");
  const auto h = block.matrix("x"), gate = block.matrix("gate.weight"), want = block.matrix("y");
  const auto want_logits = block.matrix("router_logits"), want_weights = block.matrix("expert_weights");
  const auto want_ids = block.matrix<std::int32_t>("expert_ids");
  std::vector<Matrix<float>> matrices;
  for (int e = 0; e < 8; ++e) {
    for (const char* w : {"w1", "w2", "w3"}) matrices.push_back(block.matrix(str("experts.", e, ".", w, ".weight")));
  }
  std::vector<moe::ExpertWeights> experts;
  for (std::size_t e = 0; e < 8; ++e) {
    experts.push_back({matrices[3 * e].view(), matrices[3 * e + 1].view(), matrices[3 * e + 2].view()});
  }
  test::for_each_context([&](const OpContext& ctx) {
    Routing r(h.dim(0), 8, 2);
    moe::route(ctx, gate.view(), h.view(), {}, r.output());
    test::check_close(r.logits, want_logits, {"golden router_logits", 1e-4, 2e-5});
    test::check_close(r.weights, want_weights, {"golden expert_weights", 2e-5, 0});
    CHECK(std::equal(r.experts.span().begin(), r.experts.span().end(), want_ids.span().begin()));
    moe::DispatchPlan plan;
    Matrix<float> y(h.shape());
    moe::moe_layer(ctx, experts, r.output(), plan, h.view(), y.view());
    test::check_close(y, want, test::block_output(want));
  });
}

TEST_CASE("the layer agrees with the double oracle for any number of experts, choices and tokens") {
  test::Random random(71);
  for (const Index n_experts : {1, 3, 8, 17}) {
    for (const Index k : {1, 2, 3}) {
      if (k > n_experts) continue;
      const test::Experts experts(random, n_experts, 24, 33);
      for (const Index n : {0, 1, 2, 20}) {
        CAPTURE(n_experts);
        CAPTURE(k);
        CAPTURE(n);
        const auto h = random.matrix<float>(n, 24), x = random.matrix<float>(n, 24);
        const auto gate = random.matrix<float>(n_experts, 24);
        test::SerialContext c;
        Routing r(n, n_experts, k);
        moe::route(c.op, gate.view(), h.view(), {}, r.output());
        const auto want = oracle(experts, r, h, x);
        test::for_each_context([&](const OpContext& ctx) {
          moe::DispatchPlan plan;
          Matrix<float> out = copy(x);
          moe::moe_layer(ctx, experts.weights, r.output(), plan, h.view(), out.view());
          test::check_close(out, want, test::kLayer);
        });
      }
    }
  }
}

TEST_CASE("a token's bits depend neither on the other tokens nor on workers nor on the table") {
  test::Random random(72);
  const test::Experts experts(random, 5, 40, 50);
  const auto h = random.matrix<float>(30, 40), x = random.matrix<float>(30, 40), gate = random.matrix<float>(5, 40);
  Scratch scratch;
  SerialExecutor serial;
  const KernelTable reference = test::reference_table();
  const auto run = [&](const OpContext& ctx, Index first, Index count) {
    Routing r(count, 5, 2);
    moe::DispatchPlan plan;
    Matrix<float> out(Shape<2>{{count, 40}});
    std::copy_n(x.row(first), count * 40, out.data());
    moe::route(ctx, gate.view(), h.view().rows(first, count), {}, r.output());
    moe::moe_layer(ctx, experts.weights, r.output(), plan, h.view().rows(first, count), out.view());
    return out;
  };
  const auto want = run({reference, serial, scratch}, 0, 30);
  test::for_each_table([&](const KernelTable& table) {
    for (Index t = 0; t < 30; ++t) {
      const auto alone = run({table, serial, scratch}, t, 1);
      CHECK(test::same_bits(alone.span(), want.view().row_span(t)));
    }
    test::for_each_executor([&](Executor& executor) {
      CHECK(test::same_bits(run({table, executor, scratch}, 0, 30), want));
    });
  });
}

TEST_CASE("outputs are combined in the order of the choices") {
  // (big + 1) - big is 0 in float32, (big - big) + 1 is 1: the order shows.
  const float big = 1e8f;
  Matrix<ExpertId> experts(Shape<2>{{2, 3}});
  const ExpertId order[] = {2, 0, 1, 2, 1, 0};
  std::copy_n(order, 6, experts.data());
  moe::DispatchPlan plan;
  plan.build(experts.view(), 3);
  const float output_of[] = {1.0f, -big, big};  // by expert
  Matrix<float> outputs(Shape<2>{{6, 1}}), weights(Shape<2>{{2, 3}}), x(Shape<2>{{2, 1}});
  for (Index e = 0; e < 3; ++e) {
    for (Index row = plan.offset(e); row < plan.offset(e + 1); ++row) outputs.row(row)[0] = output_of[e];
  }
  std::fill_n(weights.data(), 6, 1.0f);
  test::for_each_context([&](const OpContext& ctx) {
    std::fill_n(x.data(), 2, 0.0f);
    moe::combine(ctx, plan, outputs.view(), weights.view(), x.view());
    CHECK(x.row(0)[0] == 0.0f);
    CHECK(x.row(1)[0] == 1.0f);
  });
}

TEST_CASE("more than one worker takes part in a layer with enough tasks") {
  class Counting final : public Executor {
   public:
    int n_workers() const noexcept override { return 3; }
    void parallel_for(Index n_tasks, Task task) override {
      for (Index i = n_tasks; i-- > 0;) {  // backwards and in turns: an order that no result may depend on
        workers.insert(static_cast<int>(i % 3));
        task(i, static_cast<int>(i % 3));
      }
    }
    std::set<int> workers;
  };
  test::Random random(73);
  const test::Experts experts(random, 4, 16, 16);
  const auto h = random.matrix<float>(12, 16), gate = random.matrix<float>(4, 16);
  const test::SerialContext c;
  Counting executor;
  Scratch scratch;
  const auto run = [&](const OpContext& ctx) {
    Routing r(12, 4, 2);
    moe::DispatchPlan plan;
    Matrix<float> out(h.shape());
    moe::route(ctx, gate.view(), h.view(), {}, r.output());
    moe::moe_layer(ctx, experts.weights, r.output(), plan, h.view(), out.view());
    return out;
  };
  CHECK(test::same_bits(run({c.table, executor, scratch}), run(c.op)));
  CHECK(executor.workers.size() == 3);
}

TEST_CASE("the layer refuses experts that do not exist and shapes that do not fit, and changes nothing then") {
  test::Random random(74);
  const test::Experts experts(random, 3, 8, 10);
  const test::SerialContext c;
  const auto h = random.matrix<float>(2, 8);
  const auto x0 = random.matrix<float>(2, 8);
  moe::DispatchPlan plan;
  const auto refuse = [&](std::span<const moe::ExpertWeights> weights, const moe::RouterOutput& routing,
                          TensorView<const float, 2> in) {
    Matrix<float> x = copy(x0);
    test::error_of([&] { moe::moe_layer(c.op, weights, routing, plan, in, x.view()); });
    CHECK(test::same_bits(x, x0));
  };
  Routing good(2, 3, 2), shorter(1, 3, 2), wider(2, 3, 3);
  refuse(experts.weights, shorter.output(), h.view());
  refuse(experts.weights, {good.logits.view(), good.experts.view(), wider.weights.view()}, h.view());
  refuse(experts.weights, good.output(), h.view().rows(0, 1));
  good.experts.row(1)[1] = 3;
  refuse(experts.weights, good.output(), h.view());
  good.experts.row(1)[1] = 2;
  auto broken = experts.weights;
  broken[2].w3.rows -= 1;
  refuse(broken, good.output(), h.view());
  Matrix<float> rows(Shape<2>{{4, 8}});
  test::error_of([&] { moe::run_experts(c.op, std::span(experts.weights).first(2), plan, rows.cview(), rows.view()); });
}

TEST_CASE("packed experts are near the dense ones, and their bits depend on no executor, table or batch") {
  constexpr Index kDim = 600, kHidden = 1100, kTokens = 23;
  test::Random random(81);
  const test::Experts dense(random, 8, kDim, kHidden);
  test::SerialContext plain(test::reference_table());
  test::PackedStore store;
  for (const bool mixed : {false, true}) {
    // Mixed: P4, P8 and dense experts side by side.
    std::vector<moe::ExpertWeights> experts;
    for (std::size_t e = 0; e < 8; ++e) {
      const DType dtype = e % 2 == 0 ? DType::kP8 : DType::kP4;
      experts.push_back(mixed && e % 3 == 0 ? dense.weights[e] : store.add(plain.op, dense.weights[e], dtype));
    }
    const auto h = random.matrix<float>(kTokens, kDim), gate = random.matrix<float>(8, kDim);
    const auto run = [&](const OpContext& op, Index begin, Index count) {
      return outputs_of(op, experts, gate, h.view().rows(begin, count));
    };
    const Matrix<float> want = run(plain.op, 0, kTokens);

    Routing r(kTokens, 8, 2);
    moe::route(plain.op, gate.view(), h.view(), {}, r.output());
    const auto exact = oracle(dense, r, h, Matrix<float>(h.shape()));
    CHECK(test::relative_error(want, exact) < 0.15);  // three matrices of 8 % each, half of them

    test::for_each_table_and_plain_units([&](const KernelTable& table) {
      test::for_each_executor([&](Executor& executor) {
        Scratch scratch;
        const OpContext op{table, executor, scratch};
        CHECK(test::same_bits(run(op, 0, kTokens), want));
        executor.run_team([&](Executor& team) {
          CHECK(test::same_bits(run({table, team, scratch}, 0, kTokens), want));
        });
      });
      test::SerialContext c(table);
      for (Index begin = 0; begin < kTokens; begin += 1 + begin % 5) {
        const Index count = std::min(kTokens - begin, 1 + begin % 5);
        CHECK(test::same_bits(
            run(c.op, begin, count).span(),
            want.span().subspan(static_cast<std::size_t>(begin * kDim), static_cast<std::size_t>(count * kDim))));
      }
    });
  }
}

TEST_CASE("rounded experts are near the dense ones, and their bits depend on no executor or batch") {
  constexpr Index kDim = 150, kHidden = 230, kTokens = 37;
  test::Random random(82);
  test::Store store;
  test::SerialContext plain(test::reference_table());
  std::vector<moe::ExpertWeights> experts;
  for (std::size_t e = 0; e < 8; ++e) {  // some with a matrix that is never rounded
    experts.push_back({store.add(random, e == 3 ? DType::kF32 : DType::kBF16, kHidden, kDim, 0.1),
                       store.add(random, e == 5 ? DType::kF32 : DType::kBF16, kDim, kHidden, 0.1),
                       store.add(random, DType::kBF16, kHidden, kDim, 0.1)});
  }
  const auto h = random.matrix<float>(kTokens, kDim), gate = random.matrix<float>(8, kDim);
  const auto run = [&](const OpContext& op, Index begin, Index count) {
    return outputs_of(op, experts, gate, h.view().rows(begin, count));
  };
  const Matrix<float> exact = run(plain.op, 0, kTokens);
  test::for_each_table_and_plain_units([&](KernelTable table) {
    table.round_to_bf16 = true;
    test::SerialContext c(table);
    const Matrix<float> want = run(c.op, 0, kTokens);
    CHECK(test::relative_error(want, exact) > 0);
    CHECK(test::relative_error(want, exact) < 0.005);  // two roundings of 2^-9 at most
    test::for_each_executor([&](Executor& executor) {
      Scratch scratch;
      CHECK(test::same_bits(run({table, executor, scratch}, 0, kTokens), want));
    });
    for (Index begin = 0; begin < kTokens; begin += 1 + begin % 5) {
      const Index count = std::min(kTokens - begin, 1 + begin % 5);
      CHECK(test::same_bits(
          run(c.op, begin, count).span(),
          want.span().subspan(static_cast<std::size_t>(begin * kDim), static_cast<std::size_t>(count * kDim))));
    }
  });
}

TEST_CASE("packed w1 and w3 that are no pair are refused") {
  test::Random random(82);
  test::SerialContext c;
  const test::Experts dense(random, 1, 64, 64);
  test::PackedStore store;
  const moe::ExpertWeights good = store.add(c.op, dense.weights[0], DType::kP4);
  const auto x = random.matrix<float>(2, 64);
  Matrix<float> y(Shape<2>{{2, 64}});
  moe::expert_ffn(c.op, good, x.view(), y.view());
  moe::ExpertWeights bad = good;
  std::swap(bad.w1, bad.w3);
  test::error_of([&] { moe::expert_ffn(c.op, bad, x.view(), y.view()); });
  bad = good;
  bad.w3 = dense.weights[0].w3;
  test::error_of([&] { moe::expert_ffn(c.op, bad, x.view(), y.view()); });
  bad = good;
  bad.w3 = store.add(c.op, dense.weights[0], DType::kP4).w3;
  test::error_of([&] { moe::expert_ffn(c.op, bad, x.view(), y.view()); });
}

TEST_CASE("rows with none, one, two and three choices, in any places, are a plain loop over them") {
  constexpr Index kDim = 20, kRows = 9, kPlaces = 3;
  test::Random random(85);
  const test::Experts experts(random, 5, kDim, 33);
  test::for_each_context([&](const OpContext& op) {
    const auto h = random.matrix<float>(kRows, kDim), x0 = random.matrix<float>(kRows, kDim);
    Routing r(kRows, 5, kPlaces);
    for (Index t = 0; t < kRows; ++t) {
      for (Index i = 0; i < kPlaces; ++i) {
        const bool used = t % 4 == 3 || (t % 4 != 0 && (t % 4 == 2) != (i == t / 4));  // 0, 1, 2, 3 choices
        r.experts.row(t)[i] = used ? static_cast<ExpertId>((2 * t + 3 * i) % 5) : moe::kNoExpert;
        r.weights.row(t)[i] = used ? 0.3f + static_cast<float>(i) : 1e30f;  // nobody looks at it
      }
    }
    Matrix<float> want = copy(x0), y(Shape<2>{{1, kDim}});
    for (Index t = 0; t < kRows; ++t) {
      for (Index i = 0; i < kPlaces; ++i) {
        const ExpertId e = r.experts.row(t)[i];
        if (e == moe::kNoExpert) continue;
        moe::expert_ffn(op, experts.weights[static_cast<std::size_t>(e)], h.cview().rows(t, 1), y.view());
        op.table.axpy(r.weights.row(t)[i], y.data(), kDim, want.row(t));
      }
    }
    moe::DispatchPlan plan;
    Matrix<float> x = copy(x0);
    moe::moe_layer(op, experts.weights, r.output(), plan, h.cview(), x.view());
    CHECK(test::same_bits(x, want));
    CHECK(test::same_bits(x.view().row_span(0), x0.cview().row_span(0)));  // no choice: the residual
    CHECK(plan.n_rows() == 2 * (1 + 2 + 3));
    for (Index i = 0; i < kPlaces; ++i) CHECK(plan.row_of(0, i) == -1);
  });
}
