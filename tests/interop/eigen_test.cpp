#include "mixtral/interop/eigen.hpp"

#include <doctest/doctest.h>

#include <random>

#include "mixtral/ops/isa.hpp"
#include "mixtral/ops/linear.hpp"
#include "support/error_of.hpp"

using namespace mixtral;
using mixtral::test::error_of;
using mixtral::test::names;

namespace {

template <class T>
using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// The rounding of a float32 sum of `cols` products of numbers below 1: cols * 2^-24 at the very worst, and far
// less in sixteen partial sums.
double linear_budget(Index cols) { return static_cast<double>(cols) * 0x1p-24; }

}  // namespace

TEST_CASE_TEMPLATE("a map shows the tensor's elements and writes through", T, float, double) {
  Tensor<T, 2> owner(Shape<2>{{3, 4}});
  for (Index i = 0; i < owner.size(); ++i) owner.data()[i] = static_cast<T>(i);
  auto map = to_eigen(owner.view());
  CHECK(map.rows() == 3);
  CHECK(map.cols() == 4);
  CHECK(map.data() == owner.data());
  CHECK(map(2, 1) == 9);
  map(2, 1) = -1;
  CHECK(owner.row(2)[1] == -1);
  CHECK(to_eigen(owner.cview())(2, 1) == -1);
  static_assert(std::is_same_v<decltype(to_eigen(owner.cview()).data()), const T*>);
}

TEST_CASE_TEMPLATE("a map follows a row stride and skips what lies between", T, float, double) {
  T host[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  const auto map = to_eigen(TensorView<T, 2>(host + 1, Shape<2>{{3, 2}}, 4));
  CHECK(map(0, 0) == 1);
  CHECK(map(2, 1) == 10);
  CHECK(map.sum() == 1 + 2 + 5 + 6 + 9 + 10);
}

TEST_CASE_TEMPLATE("a rank-1 view is a column vector", T, float, double) {
  Tensor<T, 1> owner(Shape<1>{{3}});
  for (Index i = 0; i < 3; ++i) owner.data()[i] = static_cast<T>(i + 1);
  auto map = to_eigen(owner.view());
  CHECK(map.dot(map) == 14);
  map *= 2;
  CHECK(owner.data()[2] == 6);
}

TEST_CASE("empty tensors map to empty matrices and back") {
  const Tensor<float, 2> none(Shape<2>{{0, 5}});
  CHECK(to_eigen(none.view()).size() == 0);
  RowMajor<float> empty(0, 5);
  CHECK(matrix_view(empty).shape() == Shape<2>{{0, 5}});
}

TEST_CASE("rows that overlap cannot be mapped") {
  float host[8] = {};
  const Error error = error_of([&] { to_eigen(TensorView<float, 2>(host, Shape<2>{{2, 4}}, 3)); });
  CHECK(names(error, "rows of 4 elements are 3 apart"));
  CHECK_NOTHROW(to_eigen(TensorView<float, 2>(host, Shape<2>{{1, 4}}, 0)));  // a single row overlaps nothing
}

TEST_CASE_TEMPLATE("a view shows a row-major matrix, its blocks and its maps", T, float, double) {
  RowMajor<T> m(4, 6);
  for (Eigen::Index i = 0; i < m.size(); ++i) m.data()[i] = static_cast<T>(i);
  const TensorView<T, 2> whole = matrix_view(m);
  CHECK(whole.data() == m.data());
  CHECK(whole.shape() == Shape<2>{{4, 6}});
  CHECK(whole.row_stride() == 6);

  auto block = m.block(1, 2, 3, 2);
  const TensorView<T, 2> part = matrix_view(block);
  CHECK(part.shape() == Shape<2>{{3, 2}});
  CHECK(part.row_stride() == 6);
  part.row(2)[1] = -5;
  CHECK(m(3, 3) == -5);

  const RowMajor<T>& constant = m;
  static_assert(std::is_same_v<decltype(matrix_view(constant)), TensorView<const T, 2>>);
  CHECK(matrix_view(constant).row(3)[3] == -5);
  CHECK(matrix_view(to_eigen(whole)).data() == m.data());  // there and back
}

TEST_CASE("a column-major matrix has a view only if its rows have one element") {
  Eigen::MatrixXf m = Eigen::MatrixXf::Zero(3, 2);
  CHECK(names(error_of([&] { matrix_view(m); }), "columns of a [3, 2] matrix are 3 elements apart"));
  CHECK(matrix_view(m.col(1)).shape() == Shape<2>{{3, 1}});
  CHECK(matrix_view(m.col(1)).data() == m.data() + 3);
  CHECK(matrix_view(m.transpose()).shape() == Shape<2>{{2, 3}});  // the transpose of column-major is row-major
}

TEST_CASE("a vector has a view if its elements lie side by side") {
  RowMajor<double> m(2, 3);
  m << 1, 2, 3, 4, 5, 6;
  CHECK(vector_view(m.row(1)).data()[2] == 6);
  CHECK(names(error_of([&] { vector_view(m.col(1)); }), "the 2 elements are 3 apart"));
  Eigen::VectorXf v(4);
  vector_view(v).data()[3] = 7;
  CHECK(v(3) == 7);
}

TEST_CASE("linear agrees with Eigen's product in double precision") {
  SerialExecutor executor;
  Scratch scratch;
  const KernelTable table = make_table(best_isa());
  const OpContext ctx{table, executor, scratch};
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  const auto any = [&] { return uniform(random); };
  for (const Index rows : {1, 5, 64}) {
    for (const Index cols : {1, 15, 17, 300}) {
      for (const Index tokens : {0, 1, 7}) {
        CAPTURE(rows);
        CAPTURE(cols);
        CAPTURE(tokens);
        const RowMajor<float> w = RowMajor<float>::NullaryExpr(rows, cols, any);
        const RowMajor<float> x = RowMajor<float>::NullaryExpr(tokens, cols, any);
        RowMajor<float> y(tokens, rows);
        ops::linear(ctx, matrix_view(w), matrix_view(x), matrix_view(y));
        const Eigen::MatrixXd want = x.cast<double>() * w.cast<double>().transpose();
        CHECK((y.cast<double>() - want).cwiseAbs().sum() <= linear_budget(cols) * static_cast<double>(want.size()));
      }
    }
  }
}
