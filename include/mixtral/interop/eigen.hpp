// Tensors as Eigen maps and Eigen matrices as tensor views, without a copy, for float and double.
//
//   to_eigen(view) * to_eigen(other).transpose()      any tensor in an Eigen expression
//   ops::rms_norm(ctx, matrix_view(m), ...)           any row-major Eigen matrix in an op
//
// A map or view is valid as long as the memory that it was made from.
#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <concepts>
#include <type_traits>

#include "mixtral/core/tensor.hpp"

namespace mixtral {

namespace detail {

// `Like` made const if T is.
template <class T, class Like>
using ConstAs = std::conditional_t<std::is_const_v<T>, const Like, Like>;

template <class T>
concept EigenScalar = std::same_as < std::remove_const_t<T>,
float > || std::same_as<std::remove_const_t<T>, double>;

// Something of Eigen whose elements lie in memory and outlive the call: a matrix of the caller's, or any map,
// reference or block. An expression (a + b) has no memory, a temporary matrix loses it at once.
template <class E>
concept EigenMemory = std::derived_from<std::remove_cvref_t<E>, Eigen::DenseBase<std::remove_cvref_t<E>>> &&
                          EigenScalar<typename std::remove_cvref_t<E>::Scalar> &&
                          (std::remove_cvref_t<E>::Flags& Eigen::DirectAccessBit) != 0 &&
                      (std::is_lvalue_reference_v<E> ||
                       !std::derived_from<std::remove_cvref_t<E>, Eigen::PlainObjectBase<std::remove_cvref_t<E>>>);

template <class E>
using EigenElement = std::remove_pointer_t<decltype(std::declval<E&>().data())>;

}  // namespace detail

// [rows, cols], row-major, rows any distance apart.
template <class T>
using EigenMatrixMap = Eigen::Map<
    detail::ConstAs<T, Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>,
    Eigen::Unaligned, Eigen::OuterStride<>>;
// A column vector.
template <class T>
using EigenVectorMap = Eigen::Map<detail::ConstAs<T, Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, 1>>>;

// Throws Error(kInvalidArgument) where rows overlap: Eigen assumes that no element is written twice.
template <detail::EigenScalar T>
EigenMatrixMap<T> to_eigen(TensorView<T, 2> view) {
  require(view.dim(0) <= 1 || view.row_stride() >= view.dim(1), "to_eigen: rows of ", view.dim(1), " elements are ",
          view.row_stride(), " apart");
  return {view.data(), view.dim(0), view.dim(1), Eigen::OuterStride<>(view.row_stride())};
}

template <detail::EigenScalar T>
EigenVectorMap<T> to_eigen(TensorView<T, 1> view) noexcept {
  return {view.data(), view.dim(0)};
}

// [rows, cols]. Throws Error(kInvalidArgument) unless the elements of a row lie side by side: row-major matrices
// and their blocks do, a column-major matrix only if it has at most one column.
template <detail::EigenMemory E>
TensorView<detail::EigenElement<E>, 2> matrix_view(E&& matrix) {
  const Index rows = matrix.rows(), cols = matrix.cols();
  require(cols <= 1 || matrix.colStride() == 1, "matrix_view: the columns of a [", rows, ", ", cols, "] matrix are ",
          matrix.colStride(), " elements apart, expected 1 (row-major)");
  const Index stride = rows <= 1 ? cols : static_cast<Index>(matrix.rowStride());
  require(rows <= 1 || stride >= cols, "matrix_view: rows of ", cols, " elements are ", stride, " apart");
  return {matrix.data(), Shape<2>{{rows, cols}}, stride};
}

// [size] of a row or column vector. Throws Error(kInvalidArgument) unless the elements lie side by side.
template <detail::EigenMemory E>
TensorView<detail::EigenElement<E>, 1> vector_view(E&& vector) {
  static_assert(std::remove_cvref_t<E>::IsVectorAtCompileTime, "a vector has one row or one column at compile time");
  const Index size = vector.size();
  require(size <= 1 || vector.innerStride() == 1, "vector_view: the ", size, " elements are ", vector.innerStride(),
          " apart, expected 1");
  return {vector.data(), Shape<1>{{size}}};
}

}  // namespace mixtral
