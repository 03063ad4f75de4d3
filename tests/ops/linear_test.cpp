#include "mixtral/ops/linear.hpp"

#include <doctest/doctest.h>

#include <cmath>

#include "support/budgets.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace mixtral;

namespace {

template <class W, class T>
void check_types() {
  test::Random random(47);
  for (const Index n : {0, 1, 3, 7}) {
    const auto w = random.matrix<W>(11, 35);
    const auto x = random.matrix<T>(n, 35);
    Matrix<double> want(Shape<2>{{n, 11}});
    const auto wide_w = test::in_double(w);
    const auto wide_x = test::in_double(x);
    reference::linear(wide_w.cview(), wide_x.cview(), want.view());
    test::for_each_context([&](const OpContext& ctx) {
      Matrix<T> y(want.shape());
      ops::linear(ctx, w.view(), x.view(), y.view());
      test::check_close(y, want, test::stored_as<T>(test::kDotProduct));
    });
  }
}

}  // namespace

TEST_CASE_TEMPLATE("linear of every pair of element types agrees with the double oracle", W, float, bf16, f16, double) {
  check_types<W, float>();
  check_types<W, bf16>();
  check_types<W, f16>();
  check_types<W, double>();
}

TEST_CASE("linear gives the same bits for any number of workers, over many tasks") {
  test::Random random(48);
  const auto w = random.matrix<bf16>(1100, 600);  // tasks of 216 rows
  for (const Index n : {1, 9}) {
    const auto x = random.matrix<float>(n, 600);
    test::for_each_table([&](const KernelTable& table) {
      REQUIRE(ops::Product(table, 1, w.view(), n).n_tasks() > 3);
      Matrix<float> want(Shape<2>{{n, 1100}});
      Scratch scratch;
      SerialExecutor serial;
      ops::linear({table, serial, scratch}, MatrixView(w.view()), x.view(), want.view());
      test::for_each_executor([&](Executor& executor) {
        Matrix<float> y(want.shape());
        ops::linear({table, executor, scratch}, MatrixView(w.view()), x.view(), y.view());
        CHECK(test::same_bits(y, want));
      });
    });
  }
}

TEST_CASE("several products of one input equal the products one by one") {
  test::Random random(49);
  const auto a = random.matrix<float>(40, 30);
  const auto b = random.matrix<bf16>(3, 30);
  const Matrix<float> none(Shape<2>{{0, 30}});
  const auto x = random.matrix<float>(6, 30);
  test::for_each_context([&](const OpContext& ctx) {
    Matrix<float> ya(Shape<2>{{6, 40}}), yb(Shape<2>{{6, 3}}), yn(Shape<2>{{6, 0}}), one_a(ya.shape()),
        one_b(yb.shape());
    const ops::LinearJob jobs[] = {
        {none.view(), yn.view()}, {a.view(), ya.view()}, {none.view(), yn.view()}, {b.view(), yb.view()}};
    ops::linear(ctx, jobs, x.view());
    ops::linear(ctx, MatrixView(a.view()), x.view(), one_a.view());
    ops::linear(ctx, MatrixView(b.view()), x.view(), one_b.view());
    CHECK(test::same_bits(ya, one_a));
    CHECK(test::same_bits(yb, one_b));
  });
}

TEST_CASE("linear reads and writes through row strides") {
  test::Random random(50);
  const auto w = random.matrix<float>(4, 6), x = random.matrix<float>(3, 10);
  const test::SerialContext c;
  Matrix<float> dense_x(Shape<2>{{3, 6}}), dense_y(Shape<2>{{3, 4}}), y(Shape<2>{{3, 9}});
  for (Index t = 0; t < 3; ++t) std::copy_n(x.row(t) + 2, 6, dense_x.row(t));
  ops::linear(c.op, MatrixView(w.view()), dense_x.cview(), dense_y.view());
  const TensorView<float, 2> out(y.data() + 1, Shape<2>{{3, 4}}, 9);
  ops::linear(c.op, MatrixView(w.view()), TensorView<const float, 2>(x.data() + 2, Shape<2>{{3, 6}}, 10), out);
  for (Index t = 0; t < 3; ++t) {
    CHECK(test::same_bits(out.row_span(t), dense_y.view().row_span(t)));
    CHECK(y.row(t)[0] == 0.0f);
    CHECK(y.row(t)[5] == 0.0f);
  }
}

TEST_CASE("linear refuses shapes that do not fit and weights without kernels") {
  const test::SerialContext c;
  const Matrix<float> w(Shape<2>{{4, 6}}), x(Shape<2>{{2, 6}}), narrow(Shape<2>{{2, 5}});
  const Matrix<double> wide(Shape<2>{{4, 6}});
  Matrix<float> y(Shape<2>{{2, 4}}), short_y(Shape<2>{{1, 4}});
  const auto refuse = [&](const MatrixView& weights, const Matrix<float>& in, Matrix<float>& out, const char* part) {
    CHECK(test::names(test::error_of([&] { ops::linear(c.op, weights, in.view(), out.view()); }), part));
  };
  refuse(w.view(), narrow, y, "[2, 5]");
  refuse(w.view(), x, short_y, "[1, 4]");
  refuse(wide.view(), x, y, "F64");
}

TEST_CASE("products of bf16 pairs: bf16 activations in the double oracle, the same bits in every batch and block") {
  test::Random random(52);
  for (const auto& [rows, cols] : {std::pair<Index, Index>{70, 1100}, {33, 64}, {17, 33}, {5, 31}, {8, 13000}}) {
    const auto w = random.matrix<bf16>(rows, cols);
    const auto x = random.matrix<float>(29, cols);
    Matrix<double> want(Shape<2>{{29, rows}}), size(want.shape());
    for (Index t = 0; t < 29; ++t) {
      for (Index r = 0; r < rows; ++r) {
        for (Index k = 0; k < cols; ++k) {
          const double product = static_cast<double>(to_float(to_bf16(x.row(t)[k]))) * to_float(w.row(r)[k]);
          want.row(t)[r] += product;
          size.row(t)[r] += std::abs(product);
        }
      }
    }
    test::for_each_table_and_plain_units([&](KernelTable table) {
      table.round_to_bf16 = true;
      SerialExecutor serial;
      Scratch scratch;
      const OpContext op{table, serial, scratch};
      Matrix<float> y(want.shape());
      ops::linear(op, MatrixView(w.view()), x.view(), y.view());
      for (Index i = 0; i < y.size(); ++i) {
        CHECK(std::abs(y.data()[i] - want.data()[i]) <= 1e-7 * size.data()[i]);  // two roundings of what was added
      }
      for (const Index n : {0, 1, 2, 5, 6, 7, 12, 13, 25}) {
        Matrix<float> part(Shape<2>{{n, rows}});
        ops::linear(op, MatrixView(w.view()), x.cview().rows(29 - n, n), part.view());
        CHECK(std::equal(part.data(), part.data() + part.size(), y.row(29 - n)));
      }
    });
  }
}

TEST_CASE("bf16 products leave exact jobs, other weights and tables that were not asked alone") {
  test::Random random(53);
  const auto w = random.matrix<bf16>(40, 100);
  const auto f = random.matrix<float>(40, 100);
  const auto x = random.matrix<float>(3, 100);
  for (const Isa isa : all_isas()) {
    if (!supported(isa)) continue;
    SerialExecutor serial;
    Scratch scratch;
    const KernelTable strict = make_table(isa), rounding = make_table(isa, Bf16Products::kRounded);
    const auto product = [&](const KernelTable& table, const MatrixView& weights, bool exact) {
      Matrix<float> y(Shape<2>{{3, 40}});
      const ops::LinearJob job{weights, y.view(), exact};
      ops::linear({table, serial, scratch}, std::span(&job, 1), x.view());
      return y;
    };
    CHECK(test::same_bits(product(rounding, f.view(), false), product(strict, f.view(), false)));
    CHECK(test::same_bits(product(rounding, w.view(), true), product(strict, w.view(), false)));
    CHECK_FALSE(test::same_bits(product(rounding, w.view(), false), product(strict, w.view(), false)));
  }
}
