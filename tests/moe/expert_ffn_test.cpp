#include "mixtral/moe/expert_ffn.hpp"

#include <doctest/doctest.h>

#include "support/blocks.hpp"
#include "support/budgets.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/experts.hpp"

using namespace mixtral;

TEST_CASE("an expert gives the golden block") {
  const test::Block block("swiglu_expert");
  const auto x = block.matrix("x"), w1 = block.matrix("w1"), w2 = block.matrix("w2"), w3 = block.matrix("w3");
  const auto want = block.matrix("y");
  test::for_each_context([&](const OpContext& ctx) {
    Matrix<float> y(x.shape());
    moe::expert_ffn(ctx, moe::ExpertWeights{w1.view(), w2.view(), w3.view()}, x.view(), y.view());
    test::check_close(y, want, test::block_output(want));
  });
}

TEST_CASE("an expert of mixed weight types agrees with the double oracle") {
  test::Random random(67);
  for (int round = 0; round < 6; ++round) {
    const Index dim = random.index(1, 40), hidden_dim = random.index(1, 70), n = random.index(0, 9);
    const test::Experts experts(random, 1, dim, hidden_dim);
    const auto x = random.matrix<float>(n, dim);
    const auto want = test::expert_oracle(experts.weights[0], test::in_double(x));
    test::for_each_context([&](const OpContext& ctx) {
      Matrix<float> y(x.shape());
      moe::expert_ffn(ctx, experts.weights[0], x.view(), y.view());
      test::check_close(y, want, test::kLayer);
    });
  }
}

TEST_CASE_TEMPLATE("an expert of every element type agrees with the double oracle", T, float, bf16, f16, double) {
  test::Random random(68);
  const auto w1 = random.matrix<T>(20, 12), w2 = random.matrix<T>(12, 20), w3 = random.matrix<T>(20, 12);
  const auto x = random.matrix<T>(5, 12);
  const auto d1 = test::in_double(w1), d2 = test::in_double(w2), d3 = test::in_double(w3), dx = test::in_double(x);
  Matrix<double> want(x.shape());
  reference::expert_ffn(d1.cview(), d2.cview(), d3.cview(), dx.cview(), want.view());
  test::for_each_context([&](const OpContext& ctx) {
    Matrix<T> y(x.shape());
    moe::expert_ffn(ctx, w1.view(), w2.view(), w3.view(), x.view(), y.view());
    test::check_close(y, want, test::stored_as<T>(test::kLayer));
  });
}

TEST_CASE("an expert of several tasks gives the same bits for any number of workers") {
  test::Random random(69);
  test::Store store;
  // 8 rows of w1 make a task; w3, of half the width in bytes, has larger ones.
  const moe::ExpertWeights w{store.add(random, DType::kF32, 60, 9000, 0.05),
                             store.add(random, DType::kBF16, 9000, 60, 0.05),
                             store.add(random, DType::kBF16, 60, 9000, 0.05)};
  const auto x = random.matrix<float>(3, 9000);
  test::for_each_table([&](const KernelTable& table) {
    REQUIRE(ops::Product(table, 1, w.w1, 3).n_tasks() > 3);
    Scratch scratch;
    SerialExecutor serial;
    Matrix<float> want(x.shape());
    moe::expert_ffn({table, serial, scratch}, w, x.view(), want.view());
    test::for_each_executor([&](Executor& executor) {
      Matrix<float> y(x.shape());
      moe::expert_ffn({table, executor, scratch}, w, x.view(), y.view());
      CHECK(test::same_bits(y, want));
    });
  });
}

TEST_CASE("an expert refuses matrices that do not fit each other and types without kernels") {
  const test::SerialContext c;
  const Matrix<float> w1(Shape<2>{{6, 4}}), w2(Shape<2>{{4, 6}}), other(Shape<2>{{5, 4}}), x(Shape<2>{{2, 4}});
  const Matrix<double> wide(Shape<2>{{6, 4}});
  Matrix<float> y(Shape<2>{{2, 4}}), narrow(Shape<2>{{2, 3}});
  const auto refuse = [&](const moe::ExpertWeights& w, Matrix<float>& out, const char* part) {
    CHECK(test::names(test::error_of([&] { moe::expert_ffn(c.op, w, x.view(), out.view()); }), part));
  };
  refuse({w1.view(), w2.view(), other.view()}, y, "[5, 4]");
  refuse({w1.view(), w1.view(), w1.view()}, y, "w2 is [6, 4]");
  refuse({w1.view(), w2.view(), wide.view()}, y, "F64");
  refuse({w1.view(), w2.view(), w1.view()}, narrow, "[2, 3]");
  const Matrix<double> wx(Shape<2>{{2, 4}}), w2d(Shape<2>{{4, 5}});
  Matrix<double> wy(Shape<2>{{2, 4}});
  test::error_of([&] { moe::expert_ffn(c.op, wide.view(), w2d.view(), wide.view(), wx.view(), wy.view()); });
}
