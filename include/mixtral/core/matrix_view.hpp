// A weight matrix whose element type is known at run time only.
#pragma once

#include <cstddef>

#include "mixtral/core/dtype.hpp"
#include "mixtral/core/packed_layout.hpp"
#include "mixtral/core/tensor.hpp"

namespace mixtral {

// Which rows of its panels a packed matrix has: all 32, or one half of two interleaved matrices.
enum class PanelPart : std::uint8_t { kAll, kFirst, kSecond };

// Looks at rows x cols weights, [out, in]. Dense: row-major, `row_bytes` apart; `data` needs no alignment: weights
// are used where they lie in the mapped file, and safetensors aligns nothing. Packed: panels as
// core/packed_layout.hpp says; `row_bytes` is a panel's bytes over the rows that it holds of this matrix, so that
// row(i) is a panel for every multiple i of row_step().
struct MatrixView {
  DType dtype = DType::kF32;
  Index rows = 0;
  Index cols = 0;
  const std::byte* data = nullptr;
  Index row_bytes = 0;
  PanelPart part = PanelPart::kAll;

  MatrixView() = default;
  MatrixView(DType type, Index n_rows, Index n_cols, const std::byte* bytes)
      : dtype(type), rows(n_rows), cols(n_cols), data(bytes), row_bytes(n_cols * size_of(type)) {}
  static MatrixView packed(DType type, Index n_rows, Index n_cols, const std::byte* bytes,
                           PanelPart part = PanelPart::kAll) {
    MatrixView view(type, n_rows, n_cols, bytes);
    view.part = part;
    view.row_bytes = view.layout().panel_bytes() / view.row_step();
    return view;
  }
  template <class T>
  MatrixView(const TensorView<T, 2>& view)  // NOLINT: a dense view is a matrix
      : dtype(dtype_of<std::remove_const_t<T>>::value),
        rows(view.dim(0)),
        cols(view.dim(1)),
        data(reinterpret_cast<const std::byte*>(view.data())),
        row_bytes(view.row_stride() * static_cast<Index>(sizeof(T))) {}

  const std::byte* row(Index i) const noexcept { return data + i * row_bytes; }
  // What lies at `data`; two halves of interleaved panels lie at one place.
  Index storage_bytes() const noexcept { return (rows + row_step() - 1) / row_step() * row_step() * row_bytes; }
  // This matrix's share of it.
  Index bytes() const noexcept { return part == PanelPart::kAll ? storage_bytes() : storage_bytes() / 2; }
  bool is_packed() const noexcept { return mixtral::is_packed(dtype); }
  // Packed only.
  PackedLayout layout() const noexcept { return {dtype, cols}; }
  // Rows that lie together: 1, or those of a panel.
  Index row_step() const noexcept { return !is_packed() ? 1 : part == PanelPart::kAll ? kPanelRows : kHalfRows; }
  // Rows [begin, begin + count); begin is a multiple of row_step().
  MatrixView rows_from(Index begin, Index count) const noexcept {
    MatrixView view = *this;
    view.data = row(begin);
    view.rows = count;
    return view;
  }
};

}  // namespace mixtral
