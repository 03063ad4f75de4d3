// Rotary position embedding (Su et al. 2021).
#pragma once

#include <cmath>
#include <span>

#include "mixtral/ops/rope_pairing.hpp"
#include "mixtral/ops/rope_scaling.hpp"
#include "mixtral/ops/rows.hpp"

namespace mixtral::ops {

// Cosines and sines of position * frequency(i), i in [0, head_dim/2), times the frequencies' magnitude, one row per
// position. The angles are computed in double: at position 32767 float32 angles are only good to 2e-3.
struct RopeAngles {
  TensorView<float, 2> cos, sin;  // [n, head_dim / 2]
};

// Fills `angles` for `positions` [n].
inline void rope_angles(std::span<const Index> positions, const RopeFrequencies& frequencies, RopeAngles angles) {
  const Shape<2> want{{static_cast<Index>(positions.size()), frequencies.head_dim() / 2}};
  require(angles.cos.shape() == want && angles.sin.shape() == want, "rope: cos is ", angles.cos.shape(), ", sin is ",
          angles.sin.shape(), ", expected ", want);
  const double magnitude = frequencies.magnitude();
  for (Index i = 0; i < want[1]; ++i) {
    const double frequency = frequencies(i);
    for (Index t = 0; t < want[0]; ++t) {
      const double angle = static_cast<double>(positions[static_cast<std::size_t>(t)]) * frequency;
      angles.cos.row(t)[i] = static_cast<float>(magnitude * std::cos(angle));
      angles.sin.row(t)[i] = static_cast<float>(magnitude * std::sin(angle));
    }
  }
}

// Rotates every head of every row in place.  x [n, n_heads * head_dim]
inline void rope(const OpContext& ctx, TensorView<float, 2> x, const RopeAngles& angles, RopePairing pairing) {
  const Index head_dim = 2 * angles.cos.dim(1);
  require(x.dim(0) == angles.cos.dim(0) && head_dim > 0 && x.dim(1) % head_dim == 0 &&
              angles.sin.shape() == angles.cos.shape(),
          "rope: x is ", x.shape(), ", cos is ", angles.cos.shape(), ", sin is ", angles.sin.shape());
  const auto rotate = pairing == RopePairing::kHalfSplit ? ctx.table.rope_half_split : ctx.table.rope_interleaved;
  ctx.executor.parallel_for(x.dim(0), [&](Index t, int) {
    for (Index h = 0; h < x.dim(1); h += head_dim) rotate(x.row(t) + h, angles.cos.row(t), angles.sin.row(t), head_dim);
  });
}

// Angles and rotation in one call; T float, bf16, f16 (computed in float32) or double.
template <class T>
void rope(const OpContext& ctx, TensorView<T, 2> x, std::span<const Index> positions,
          const RopeFrequencies& frequencies, RopePairing pairing) {
  const Index head_dim = frequencies.head_dim();
  require(static_cast<Index>(positions.size()) == x.dim(0) && x.dim(1) % head_dim == 0, "rope: x is ", x.shape(), ", ",
          positions.size(), " positions, head_dim ", head_dim);
  if constexpr (!kHasKernels<T>) {
    reference::rope(x, positions, frequencies, pairing == RopePairing::kInterleaved);
  } else {
    const ScratchScope scope(ctx.scratch);
    const RopeAngles angles{ctx.scratch.matrix<float>(x.dim(0), head_dim / 2),
                            ctx.scratch.matrix<float>(x.dim(0), head_dim / 2)};
    rope_angles(positions, frequencies, angles);
    if constexpr (std::is_same_v<T, float>) {
      rope(ctx, x, angles, pairing);
    } else {
      const auto wide = ctx.scratch.matrix<float>(x.dim(0), x.dim(1));
      for (Index t = 0; t < x.dim(0); ++t) as_float(ctx.table, x.row(t), x.dim(1), wide.row(t));
      rope(ctx, wide, angles, pairing);
      for (Index t = 0; t < x.dim(0); ++t) from_float(wide.row(t), x.dim(1), x.row(t));
    }
  }
}

}  // namespace mixtral::ops
