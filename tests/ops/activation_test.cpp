#include "mixtral/ops/activation.hpp"

#include <doctest/doctest.h>

#include "support/budgets.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace mixtral;

TEST_CASE_TEMPLATE("softmax of every element type agrees with the double oracle", T, float, bf16, f16, double) {
  test::Random random(45);
  for (const Index cols : {1, 2, 17, 100}) {
    const auto x = random.matrix<T>(4, cols, -5, 5);
    auto want = test::in_double(x);
    reference::softmax(want.view());
    test::for_each_context([&](const OpContext& ctx) {
      Matrix<T> y(x.shape());
      std::copy_n(x.data(), x.size(), y.data());
      ops::softmax(ctx, y.view());
      test::check_close(y, want, test::stored_as<T>(test::kFewRoundings));
    });
  }
}

TEST_CASE_TEMPLATE("swiglu of every element type agrees with the double oracle", T, float, bf16, f16, double) {
  test::Random random(46);
  for (const Index cols : {1, 15, 33}) {
    const auto gate = random.matrix<T>(3, cols, -6, 6), up = random.matrix<T>(3, cols, -2, 2);
    Matrix<double> want(gate.shape());
    const auto wide_gate = test::in_double(gate), wide_up = test::in_double(up);
    reference::swiglu(wide_gate.cview(), wide_up.cview(), want.view());
    test::for_each_context([&](const OpContext& ctx) {
      Matrix<T> h(gate.shape());
      ops::swiglu(ctx, gate.view(), up.view(), h.view());
      test::check_close(h, want, test::stored_as<T>(test::kFewRoundings));
    });
  }
}

TEST_CASE("activations refuse shapes that do not fit and take no rows") {
  const test::SerialContext c;
  Matrix<float> narrow(Shape<2>{{2, 3}}), wide(Shape<2>{{2, 4}}), empty(Shape<2>{{2, 0}}), none;
  test::error_of([&] { ops::swiglu(c.op, narrow.cview(), wide.cview(), wide.view()); });
  test::error_of([&] { ops::swiglu(c.op, wide.cview(), wide.cview(), narrow.view()); });
  test::error_of([&] { ops::softmax(c.op, empty.view()); });
  CHECK_NOTHROW(ops::softmax(c.op, none.view()));
  CHECK_NOTHROW(ops::swiglu(c.op, none.cview(), none.cview(), none.view()));
}
