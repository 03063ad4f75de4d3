#include "mixtral/ops/rms_norm.hpp"

#include <doctest/doctest.h>

#include "support/blocks.hpp"
#include "support/budgets.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace mixtral;

TEST_CASE("rms_norm gives the golden block, zeros, tiny and huge rows included") {
  const test::Block block("rmsnorm_eps1e-05");
  const auto x = block.matrix("x"), weight = block.matrix("weight"), want = block.matrix("y");
  test::for_each_context([&](const OpContext& ctx) {
    Matrix<float> y(x.shape());
    ops::rms_norm(ctx, x.view(), weight.view(), 1e-5f, y.view());
    for (Index t = 0; t < x.dim(0); ++t) {
      Matrix<float> row(Shape<2>{{1, x.dim(1)}});
      std::copy_n(want.row(t), x.dim(1), row.data());
      test::check_close(y.view().row_span(t), row.span(), test::block_output(row));
    }
  });
}

TEST_CASE_TEMPLATE("rms_norm of every element type agrees with the double oracle", T, float, bf16, f16, double) {
  test::Random random(41);
  const auto x = random.matrix<T>(5, 37, -3, 3);
  const auto weight = random.values<float>(37, 0, 2);
  const std::vector<double> wide_weight(weight.begin(), weight.end());
  Matrix<double> want(x.shape());
  const auto wide_x = test::in_double(x);
  reference::rms_norm(wide_x.cview(), std::span<const double>(wide_weight), 1e-5f, want.view());
  test::for_each_context([&](const OpContext& ctx) {
    Matrix<T> y(x.shape());
    ops::rms_norm(ctx, x.view(), std::span<const float>(weight), 1e-5f, y.view());
    test::check_close(y, want, test::stored_as<T>(test::kFewRoundings));
    // Weights of any type, double included.
    ops::rms_norm(ctx, x.view(), std::span<const double>(wide_weight), 1e-5f, y.view());
    test::check_close(y, want, test::stored_as<T>(test::kFewRoundings));
  });
}

TEST_CASE("rms_norm works in place, on no rows, with weights of any stored type") {
  test::Random random(42);
  const auto x = random.matrix<float>(3, 20);
  const auto weight = random.matrix<bf16>(1, 20);
  test::for_each_context([&](const OpContext& ctx) {
    Matrix<float> y(x.shape()), in_place(x.shape());
    std::copy_n(x.data(), x.size(), in_place.data());
    ops::rms_norm(ctx, x.view(), MatrixView(weight.view()), 1e-5f, y.view());
    ops::rms_norm(ctx, in_place.cview(), MatrixView(weight.view()), 1e-5f, in_place.view());
    CHECK(test::same_bits(y, in_place));
    ops::rms_norm(ctx, x.view().rows(0, 0), MatrixView(weight.view()), 1e-5f, y.view().rows(0, 0));
  });
}

TEST_CASE("rms_norm refuses shapes that do not fit and weights without kernels") {
  const test::SerialContext c;
  Matrix<float> x(Shape<2>{{2, 8}}), y(Shape<2>{{2, 7}});
  const Matrix<float> weight(Shape<2>{{1, 7}});
  const Matrix<double> wide(Shape<2>{{1, 8}});
  CHECK(test::names(test::error_of([&] { ops::rms_norm(c.op, x.cview(), weight.view(), 1e-5f, x.view()); }), "[1, 7]"));
  CHECK(test::names(test::error_of([&] { ops::rms_norm(c.op, x.cview(), wide.view(), 1e-5f, y.view()); }), "[2, 7]"));
  CHECK(test::names(test::error_of([&] { ops::rms_norm(c.op, x.cview(), wide.view(), 1e-5f, x.view()); }), "F64"));
}
