// Packed weights that fill an arena, for benches of single products.
#pragma once

#include <algorithm>
#include <random>
#include <span>
#include <vector>

#include "mixtral/ops/pack.hpp"
#include "probes/arena.hpp"

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

// As many matrices as fit into the arena. All panels are the same random one: a product takes no shorter time for it,
// and packing does.
inline std::vector<MatrixView> fill_packed(const OpContext& ctx, const Arena& arena, DType dtype, WeightShape shape) {
  const auto dense = random_floats(kPanelRows * shape.cols);
  const Index bytes = ops::packed_bytes(dtype, shape.rows, shape.cols);
  const Index panel = bytes / panels_of(shape.rows), count = static_cast<Index>(arena.size()) / bytes;
  std::byte* data = arena.data();
  ops::pack(ctx, MatrixView(DType::kF32, kPanelRows, shape.cols, reinterpret_cast<const std::byte*>(dense.data())),
            dtype, {}, data);
  for (Index at = panel; at < count * bytes; at += panel) std::copy_n(data, panel, data + at);
  std::vector<MatrixView> matrices;
  for (Index i = 0; i < count; ++i) {
    matrices.push_back(MatrixView::packed(dtype, shape.rows, shape.cols, data + i * bytes));
  }
  return matrices;
}

}  // namespace mixtral::bench
