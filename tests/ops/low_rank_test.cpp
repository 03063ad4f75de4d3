#include "mixtral/ops/low_rank.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "mixtral/moe/expert_ffn.hpp"
#include "support/budgets.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/experts.hpp"
#include "support/models.hpp"

using namespace mixtral;

namespace {

constexpr Index kRank = 5;

ops::LowRank random_pair(test::Random& random, test::Store& store, const MatrixView& w) {
  return {store.add(random, DType::kF32, kRank, w.cols, 0.4), store.add(random, DType::kBF16, w.rows, kRank, 0.4),
          0.7f};
}

// w + scale b a, in double.
Matrix<double> merged(const MatrixView& w, const ops::LowRank& pair) {
  Matrix<double> out = test::in_double(w);
  const Matrix<double> a = test::in_double(pair.a), b = test::in_double(pair.b);
  for (Index r = 0; r < w.rows; ++r) {
    for (Index k = 0; k < w.cols; ++k) {
      for (Index i = 0; i < kRank; ++i) out.row(r)[k] += static_cast<double>(pair.scale) * b.row(r)[i] * a.row(i)[k];
    }
  }
  return out;
}

}  // namespace

TEST_CASE("a product with a low-rank pair is that with the sum of both, beside products without one") {
  test::Random random(501);
  test::Store store;
  const MatrixView w = store.add(random, DType::kBF16, 700, 130, 0.3), plain = store.add(random, DType::kF32, 40, 130);
  const ops::LowRank pair = random_pair(random, store, w);
  for (const Index n : {1, 7, 200}) {
    const auto x = random.matrix<float>(n, 130);
    Matrix<double> want(Shape<2>{{n, 700}});
    reference::linear(merged(w, pair).cview(), test::in_double(x).cview(), want.view());
    Matrix<float> first;
    test::for_each_table([&](const KernelTable& table) {
      test::for_each_executor([&](Executor& executor) {
        Scratch scratch;
        const OpContext op{table, executor, scratch};
        Matrix<float> y(Shape<2>{{n, 700}}), other(Shape<2>{{n, 40}}), alone(other.shape());
        const ops::LinearJob jobs[] = {{.w = plain, .y = other.view()}, {.w = w, .y = y.view(), .low_rank = &pair}};
        ops::linear(op, jobs, x.view());
        test::check_close(y, want, test::kLayer);
        if (first.size() == 0)
          first = std::move(y);
        else
          CHECK(test::same_bits(y, first));
        ops::linear(op, plain, x.view(), alone.view());
        CHECK(test::same_bits(other, alone));
      });
    });
  }
}

TEST_CASE("an expert with low-rank pairs, dense or packed, is the expert plus them, row by row") {
  test::Random random(502);
  test::Store store;
  test::PackedStore packed;
  test::SerialContext plain(test::reference_table());
  constexpr Index kDim = 96, kHidden = 530;
  const moe::ExpertWeights dense{store.add(random, DType::kBF16, kHidden, kDim, 0.3),
                                 store.add(random, DType::kF32, kDim, kHidden, 0.2),
                                 store.add(random, DType::kF16, kHidden, kDim, 0.3)};
  const ops::LowRank one = random_pair(random, store, dense.w1), two = random_pair(random, store, dense.w2),
                     three = random_pair(random, store, dense.w3);
  const auto x = random.matrix<float>(9, kDim);
  for (const int mask : {1, 2, 4, 7}) {
    const moe::ExpertLowRank pairs{mask & 1 ? &one : nullptr, mask & 2 ? &two : nullptr, mask & 4 ? &three : nullptr};
    Matrix<double> want(Shape<2>{{9, kDim}});
    reference::expert_ffn((pairs.w1 ? merged(dense.w1, one) : test::in_double(dense.w1)).cview(),
                          (pairs.w2 ? merged(dense.w2, two) : test::in_double(dense.w2)).cview(),
                          (pairs.w3 ? merged(dense.w3, three) : test::in_double(dense.w3)).cview(),
                          test::in_double(x).cview(), want.view());
    for (const bool is_packed : {false, true}) {
      moe::ExpertWeights expert = is_packed ? packed.add(plain.op, dense, DType::kP8) : dense;
      expert.low_rank = pairs;
      Matrix<float> first;
      test::for_each_table_and_plain_units([&](const KernelTable& table) {
        test::for_each_executor([&](Executor& executor) {
          Scratch scratch;
          const OpContext op{table, executor, scratch};
          Matrix<float> y(want.shape()), row(Shape<2>{{1, kDim}});
          moe::expert_ffn(op, expert, x.view(), y.view());
          if (first.size() == 0) {
            CHECK(test::relative_error(y, want) < (is_packed ? 0.02 : 1e-5));
            first = std::move(y);
            return;
          }
          CHECK(test::same_bits(y, first));
          moe::expert_ffn(op, expert, x.view().rows(4, 1), row.view());
          CHECK(test::same_bits(row.span(), first.view().row_span(4)));
        });
      });
    }
  }
}

TEST_CASE("pairs in attention are the model with the sums as weights") {
  test::Random random(503);
  test::Store store;
  const test::RandomModel m(test::small_config());
  Model with_pairs = m.model, with_sums = m.model;
  std::vector<ops::LowRank> pairs;
  pairs.reserve(8);
  for (std::size_t l = 0; l < 2; ++l) {
    LayerWeights& layer = with_pairs.weights.layers[l];
    LayerWeights& sums = with_sums.weights.layers[l];
    const auto add = [&](const MatrixView& w, const ops::LowRank*& place, MatrixView& sum) {
      pairs.push_back(random_pair(random, store, w));
      place = &pairs.back();
      const Matrix<double> all = merged(w, pairs.back());
      sum = store.add(random, DType::kF32, w.rows, w.cols);
      auto* out = reinterpret_cast<float*>(const_cast<std::byte*>(sum.data));
      for (Index i = 0; i < all.size(); ++i) out[i] = static_cast<float>(all.data()[i]);
    };
    add(layer.wq, layer.low_rank.wq, sums.wq);
    add(layer.wk, layer.low_rank.wk, sums.wk);
    add(layer.wv, layer.low_rank.wv, sums.wv);
    add(layer.wo, layer.low_rank.wo, sums.wo);
  }
  test::SerialContext c(make_table(best_isa()));
  const std::vector<float> got = test::logits_of(c.op, with_pairs, {}), want = test::logits_of(c.op, with_sums, {});
  double largest = 0;
  for (std::size_t i = 0; i < got.size(); ++i) largest = std::max(largest, std::abs(double{got[i]} - double{want[i]}));
  CHECK(largest < 1e-3);
  CHECK(got != test::logits_of(c.op, m.model, {}));
}

TEST_CASE("a pair that does not fit its weights is refused") {
  test::Random random(504);
  test::Store store;
  test::SerialContext c;
  const MatrixView w = store.add(random, DType::kF32, 12, 8);
  const auto x = random.matrix<float>(2, 8);
  Matrix<float> y(Shape<2>{{2, 12}});
  const ops::LowRank good = random_pair(random, store, w);
  for (int i = 0; i < 4; ++i) {
    ops::LowRank bad = good;
    if (i == 0) bad.a.cols = 7;
    if (i == 1) bad.b.rows = 11;
    if (i == 2) bad.b.cols = 4;
    if (i == 3) bad.a.dtype = DType::kP4;
    const ops::LinearJob job{.w = w, .y = y.view(), .low_rank = &bad};
    test::error_of([&] { ops::linear(c.op, {&job, 1}, x.view()); });
    moe::ExpertWeights expert{w, store.add(random, DType::kF32, 8, 12), w};
    expert.low_rank.w1 = &bad;
    Matrix<float> out(x.shape());
    test::error_of([&] { moe::expert_ffn(c.op, expert, x.view(), out.view()); });
  }
}
