#include "mixtral/ops/embedding.hpp"

#include <doctest/doctest.h>

#include "support/compare.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace mixtral;

namespace {

template <class W, class T>
void check_types() {
  test::Random random(51);
  const auto table = random.matrix<W>(7, 19);
  const std::vector<TokenId> ids = {6, 0, 3, 3};
  test::for_each_context([&](const OpContext& ctx) {
    Matrix<T> y(Shape<2>{{4, 19}});
    ops::embedding(ctx, table.view(), std::span<const TokenId>(ids), y.view());
    for (Index t = 0; t < 4; ++t) {
      for (Index d = 0; d < 19; ++d) {
        T want;
        reference::assign(
            want, static_cast<reference::Sum<T>>(reference::value(table.row(ids[static_cast<std::size_t>(t)])[d])));
        CHECK(reference::value(y.row(t)[d]) == reference::value(want));
      }
    }
  });
}

}  // namespace

TEST_CASE_TEMPLATE("embedding copies rows exactly between all element types", W, float, bf16, f16, double) {
  check_types<W, float>();
  check_types<W, bf16>();
  check_types<W, f16>();
  check_types<W, double>();
}

TEST_CASE("embedding refuses ids outside the table, shapes that do not fit and tables without kernels") {
  const test::SerialContext c;
  const Matrix<float> table(Shape<2>{{7, 4}});
  const Matrix<double> wide(Shape<2>{{7, 4}});
  Matrix<float> y(Shape<2>{{1, 4}});
  Matrix<bf16> half(Shape<2>{{1, 4}});
  for (const TokenId id : {-1, 7, 2147483647}) {
    const std::span<const TokenId> ids(&id, 1);
    CHECK(test::names(test::error_of([&] { ops::embedding(c.op, MatrixView(table.view()), ids, y.view()); }), str(id)));
    CHECK(test::names(test::error_of([&] { ops::embedding(c.op, table.view(), ids, half.view()); }), str(id)));
  }
  const std::vector<TokenId> two = {0, 1};
  CHECK(test::names(test::error_of([&] { ops::embedding(c.op, MatrixView(table.view()), two, y.view()); }), "[1, 4]"));
  const TokenId zero = 0;
  CHECK(test::names(test::error_of([&] {
                      ops::embedding(c.op, MatrixView(wide.view()), {&zero, 1}, y.view());
                    }),
                    "F64"));
}
