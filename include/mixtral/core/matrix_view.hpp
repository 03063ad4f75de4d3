// A weight matrix whose element type is known at run time only.
#pragma once

#include <cstddef>

#include "mixtral/core/dtype.hpp"
#include "mixtral/core/tensor.hpp"

namespace mixtral {

// Looks at rows x cols weights, [out, in], row-major, `row_bytes` apart. `data` needs no alignment: weights
// are used where they lie in the mapped file, and safetensors aligns nothing.
struct MatrixView {
  DType dtype = DType::kF32;
  Index rows = 0;
  Index cols = 0;
  const std::byte* data = nullptr;
  Index row_bytes = 0;

  MatrixView() = default;
  MatrixView(DType type, Index n_rows, Index n_cols, const std::byte* bytes)
      : dtype(type), rows(n_rows), cols(n_cols), data(bytes), row_bytes(n_cols * size_of(type)) {}
  template <class T>
  MatrixView(const TensorView<T, 2>& view)  // NOLINT: a dense view is a matrix
      : dtype(dtype_of<std::remove_const_t<T>>::value),
        rows(view.dim(0)),
        cols(view.dim(1)),
        data(reinterpret_cast<const std::byte*>(view.data())),
        row_bytes(view.row_stride() * static_cast<Index>(sizeof(T))) {}

  const std::byte* row(Index i) const noexcept { return data + i * row_bytes; }
  Index bytes() const noexcept { return rows * row_bytes; }
  // Rows [begin, begin + count).
  MatrixView rows_from(Index begin, Index count) const noexcept {
    MatrixView part = *this;
    part.data = row(begin);
    part.rows = count;
    return part;
  }
};

}  // namespace mixtral
