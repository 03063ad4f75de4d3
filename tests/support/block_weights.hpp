// Random weights in GGML's blocks, and the same in panels.
#pragma once

#include <cstring>
#include <vector>

#include "io/ggml_blocks.hpp"
#include "io/ggml_panels.hpp"
#include "mixtral/core/matrix_view.hpp"
#include "mixtral/ops/pack.hpp"
#include "support/random.hpp"

namespace mixtral::test {

// Those that are kept as they are.
inline constexpr GgmlType kBlockTypes[] = {GgmlType::kQ8_0, GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ4_K};

// [rows, cols] of a type, whole blocks.
struct BlockRows {
  BlockRows(Random& random, GgmlType kind, Index n_rows, Index n_cols) : type(kind), rows(n_rows), cols(n_cols) {
    const GgmlTypeInfo& info = info_of(type);
    bytes.resize(static_cast<std::size_t>(rows * row_bytes()));
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.index(0, 255));
    const bool two = type == GgmlType::kQ4_1 || type == GgmlType::kQ4_K;
    for (Index i = 0; i < static_cast<Index>(bytes.size()); i += info.block_bytes) {
      for (Index half = 0; half <= two; ++half) put_half(i + 2 * half, random.uniform(-0.01, 0.01));
    }
  }

  Index row_bytes() const { return cols / info_of(type).block_weights * info_of(type).block_bytes; }
  const std::byte* row(Index r) const { return bytes.data() + r * row_bytes(); }
  void put_half(Index at, double value) {
    const f16 half = to_f16(static_cast<float>(value));
    std::memcpy(bytes.data() + at, &half, sizeof half);
  }
  // What the weights are.
  Matrix<float> floats() const {
    Matrix<float> out(Shape<2>{{rows, cols}});
    for (Index r = 0; r < rows; ++r) dequantize(type, row(r), cols, out.row(r));
    return out;
  }

  GgmlType type;
  Index rows, cols;
  std::vector<std::byte> bytes;
};

// One matrix, or two of one shape, as panels. `finite`: what fill_panel() said of all.
class BlockPanels {
 public:
  explicit BlockPanels(const BlockRows& w, const BlockRows* other = nullptr)
      : bytes_(Shape<1>{{other == nullptr ? ops::packed_bytes(*exact_type(w.type), w.rows, w.cols)
                                          : ops::packed_pair_bytes(*exact_type(w.type), w.rows, w.cols)}}) {
    const DType dtype = *exact_type(w.type);
    const Index run = other == nullptr ? kPanelRows : kHalfRows;
    auto* const out = reinterpret_cast<std::byte*>(bytes_.data());
    for (Index p = 0; p * run < w.rows; ++p) {
      const std::byte* rows[kPanelRows] = {};
      for (Index r = 0; r < kPanelRows; ++r) {
        const Index row = p * run + r % run;
        if (row < w.rows) rows[r] = (r < run ? w : *other).row(row);
      }
      finite = fill_panel(w.type, rows, w.cols, out + p * PackedLayout{dtype, w.cols}.panel_bytes()) && finite;
    }
    const bool pair = other != nullptr;
    view = MatrixView::packed(dtype, w.rows, w.cols, out, pair ? PanelPart::kFirst : PanelPart::kAll);
    second = MatrixView::packed(dtype, w.rows, w.cols, out, PanelPart::kSecond);
  }

  bool finite = true;
  MatrixView view, second;  // second: of a pair

 private:
  Tensor<std::uint8_t, 1> bytes_;
};

}  // namespace mixtral::test
