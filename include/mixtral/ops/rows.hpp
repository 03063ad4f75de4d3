// How an op applies a float32 row kernel to rows of any element type.
#pragma once

#include "mixtral/core/matrix_view.hpp"
#include "mixtral/ops/context.hpp"
#include "mixtral/ops/reference.hpp"

namespace mixtral::ops {

// The element types that the kernels serve; double goes to the reference.
template <class T>
inline constexpr bool kHasKernels = !std::is_same_v<T, double>;

template <class T>
const std::byte* bytes_of(const T* p) noexcept {
  return reinterpret_cast<const std::byte*>(p);
}

// A row as float32: itself, or widened into scratch that must hold n floats.
template <class T>
const float* as_float(const KernelTable& table, const T* row, Index n, float* scratch) noexcept {
  if constexpr (std::is_same_v<T, float>) {
    return row;
  } else {
    table.widen[dtype_of<T>::value](bytes_of(row), n, scratch);
    return scratch;
  }
}

// Writes float32 results into a row of another type.
template <class T>
void from_float(const float* in, Index n, T* out) noexcept {
  for (Index i = 0; i < n; ++i) reference::assign(out[i], in[i]);
}

// Only dense weights have row kernels; a view may look at any type.
inline void require_weights(const char* op, const MatrixView& w) {
  require(static_cast<int>(w.dtype) < kWeightDTypes, op, ": ", name_of(w.dtype), " weights");
}

template <class A, class B, int R>
void require_same_shape(const char* op, const char* left, const TensorView<A, R>& a, const char* right,
                        const TensorView<B, R>& b) {
  require(a.shape() == b.shape(), op, ": ", left, " is ", a.shape(), ", ", right, " is ", b.shape());
}

}  // namespace mixtral::ops
