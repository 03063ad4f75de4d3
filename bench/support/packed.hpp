// Packed weights that fill an arena, for benches of single products.
#pragma once

#include <algorithm>
#include <random>
#include <span>
#include <vector>

#include "mixtral/core/arena.hpp"
#include "mixtral/ops/pack.hpp"

namespace mixtral::bench {

struct WeightShape {
  const char* name;
  Index rows, cols;
};
// Of Mixtral 8x7B; an expert's w1 and w3 are multiplied as one matrix.
inline constexpr WeightShape kMixtralShapes[] = {{"w13", 28672, 4096}, {"w2", 4096, 14336}, {"wq", 4096, 4096}};

inline std::vector<float> random_floats(Index n) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> out(static_cast<std::size_t>(n));
  for (float& x : out) x = uniform(random);
  return out;
}

// As many matrices as fit into the arena, still without content.
inline std::vector<MatrixView> packed_matrices(const Arena& arena, DType dtype, WeightShape shape) {
  const Index bytes = ops::packed_bytes(dtype, shape.rows, shape.cols);
  std::vector<MatrixView> matrices;
  for (Index at = 0; at + bytes <= static_cast<Index>(arena.size()); at += bytes) {
    matrices.push_back(MatrixView::packed(dtype, shape.rows, shape.cols, arena.data() + at));
  }
  return matrices;
}

// Fills them. All panels are the same random one: a product takes no shorter time for it, and packing does.
inline void fill_packed(const OpContext& ctx, std::span<const MatrixView> matrices) {
  const MatrixView& first = matrices[0];
  const auto dense = random_floats(kPanelRows * first.cols);
  const MatrixView rows(DType::kF32, kPanelRows, first.cols, reinterpret_cast<const std::byte*>(dense.data()));
  std::vector<std::byte> panel(static_cast<std::size_t>(first.layout().panel_bytes()));
  ops::pack(ctx, rows, first.dtype, {}, panel.data());
  for (const MatrixView& w : matrices) {
    auto* data = const_cast<std::byte*>(w.data);  // the arena's
    for (Index p = 0; p < panels_of(w.rows); ++p) data = std::copy(panel.begin(), panel.end(), data);
  }
}

}  // namespace mixtral::bench
