#include "mixtral/core/tensor.hpp"

#include <doctest/doctest.h>

#include <cstdint>

#include "mixtral/core/matrix_view.hpp"
#include "support/error_of.hpp"

using namespace mixtral;

TEST_CASE("a new tensor is zero, dense and aligned to 64 bytes") {
  const Tensor<float, 3> x(Shape<3>{{2, 3, 5}});
  CHECK(x.size() == 30);
  CHECK(reinterpret_cast<std::uintptr_t>(x.data()) % kTensorAlignment == 0);
  CHECK(x.view().n_rows() == 6);
  CHECK(x.view().n_cols() == 5);
  CHECK(x.row(5) - x.data() == 25);
  for (const float v : x.span()) CHECK(v == 0.0f);
}

TEST_CASE("a tensor with a dimension of zero holds nothing") {
  const Matrix<float> x(Shape<2>{{0, 7}});
  CHECK(x.size() == 0);
  CHECK(x.data() == nullptr);
  CHECK(x.span().empty());
  CHECK(Matrix<float>().size() == 0);
}

TEST_CASE("a tensor refuses negative dimensions and those whose product overflows") {
  CHECK(test::names(test::error_of([] { Matrix<float>(Shape<2>{{3, -1}}); }), "[3, -1]"));
  const Index huge = Index{1} << 40;
  CHECK(test::names(test::error_of([&] { Matrix<float>(Shape<2>{{huge, huge}}); }), "1099511627776"));
  CHECK(Matrix<float>(Shape<2>{{0, huge}}).size() == 0);
  CHECK_THROWS_AS(Matrix<float>(Shape<2>{{huge, Index{1} << 22}}), std::bad_alloc);
}

TEST_CASE("a view with a row stride skips what lies between its rows") {
  Matrix<float> x(Shape<2>{{4, 8}});
  const TensorView<float, 2> middle(x.data() + 2, Shape<2>{{4, 3}}, 8);
  for (Index t = 0; t < 4; ++t) {
    for (float& v : middle.row_span(t)) v = 1;
  }
  float sum = 0;
  for (const float v : x.span()) sum += v;
  CHECK(sum == 12.0f);
  CHECK(x.row(3)[1] == 0.0f);
  CHECK(x.row(3)[2] == 1.0f);
  const TensorView<const float, 2> tail = middle.rows(2, 2);
  CHECK(tail.dim(0) == 2);
  CHECK(tail.row(1) == x.row(3) + 2);
}

TEST_CASE("shapes print as lists") {
  CHECK(shape_text(Shape<2>{{3, 4}}) == "[3, 4]");
  CHECK(shape_text(Shape<1>{{0}}) == "[0]");
}

TEST_CASE("a matrix view finds its rows by bytes, for each element type") {
  const Matrix<bf16> x(Shape<2>{{4, 6}});
  const MatrixView w = x.view();
  CHECK(w.dtype == DType::kBF16);
  CHECK(w.row_bytes == 12);
  CHECK(w.bytes() == 48);
  CHECK(w.row(3) - w.data == 36);
  const MatrixView part = w.rows_from(1, 2);
  CHECK(part.rows == 2);
  CHECK(part.cols == 6);
  CHECK(part.data == w.row(1));

  Matrix<double> wide(Shape<2>{{4, 6}});
  const MatrixView strided = TensorView<double, 2>(wide.data(), Shape<2>{{4, 2}}, 6);
  CHECK(strided.dtype == DType::kF64);
  CHECK(strided.row_bytes == 48);
}

TEST_CASE("element types keep their numbers, names and sizes") {
  for (const DTypeInfo& info : kDTypes) {
    CHECK(kDTypes[static_cast<int>(info.dtype)].dtype == info.dtype);
    CHECK(size_of(info.dtype) == info.bytes);
    CHECK(name_of(info.dtype) == info.name);
  }
  CHECK(static_cast<int>(DType::kF32) == 0);
  CHECK(static_cast<int>(DType::kBF16) == 1);
  CHECK(static_cast<int>(DType::kF16) == 2);
}
