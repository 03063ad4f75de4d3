// Activations as bytes, for products with packed weights.
#pragma once

#include <algorithm>

#include "mixtral/core/tensor.hpp"
#include "mixtral/ops/context.hpp"

namespace mixtral::ops {

// Rows quantised slab by slab (simd/packed_rows.hpp): one scale for 512 activations of one token, 64 of which lie
// together. Looks at scratch memory; q == nullptr: none.
struct QuantizedRows {
  std::int8_t* q = nullptr;        // [slabs][8 tiles][slab_tokens][64]
  simd::SlabMeta* meta = nullptr;  // [slabs][slab_tokens]
  Index slab_tokens = 0;           // tokens in memory; rows() looks at some of them

  std::int8_t* tile(Index s, Index tile, Index t) const noexcept {
    return q + s * slab_tokens * kSlabCols + (tile * slab_tokens + t) * kTileCols;
  }
  simd::SlabMeta* slab_meta(Index s, Index t) const noexcept { return meta + s * slab_tokens + t; }
  QuantizedRows rows(Index begin) const noexcept {
    return q == nullptr ? *this : QuantizedRows{q + begin * kTileCols, meta + begin, slab_tokens};
  }
};

// Room for [n, cols], uninitialised.
inline QuantizedRows take_quantized(Scratch& scratch, Index n, Index cols) {
  const Index slabs = PackedLayout{.cols = cols}.slabs();
  return {scratch.take<std::int8_t>(slabs * n * kSlabCols), scratch.take<simd::SlabMeta>(slabs * n), n};
}

// Quantises slab s of row t.  row [cols]
inline void quantize_slab(const KernelTable& table, const float* row, Index cols, Index s, Index t,
                          const QuantizedRows& out) noexcept {
  const Index begin = s * kSlabCols, n = cols - begin < kSlabCols ? cols - begin : kSlabCols;
  std::int8_t q[kSlabCols];
  table.quantize_slab(row + begin, n, q, out.slab_meta(s, t));
  for (Index i = 0; i < kSlabTiles; ++i) std::copy_n(q + i * kTileCols, kTileCols, out.tile(s, i, t));
}

// Row `from` of in becomes row `to` of out.
inline void copy_row(const QuantizedRows& in, Index from, Index cols, Index to, const QuantizedRows& out) noexcept {
  for (Index s = 0; s < PackedLayout{.cols = cols}.slabs(); ++s) {
    for (Index i = 0; i < kSlabTiles; ++i) std::copy_n(in.tile(s, i, from), kTileCols, out.tile(s, i, to));
    *out.slab_meta(s, to) = *in.slab_meta(s, from);
  }
}

// Quantises each token once.  x [n, cols]
inline QuantizedRows quantize(const OpContext& ctx, TensorView<const float, 2> x) {
  const QuantizedRows out = take_quantized(ctx.scratch, x.dim(0), x.dim(1));
  const Index slabs = PackedLayout{.cols = x.dim(1)}.slabs();
  ctx.executor.parallel_for(x.dim(0), [&](Index t, int) {
    for (Index s = 0; s < slabs; ++s) quantize_slab(ctx.table, x.row(t), x.dim(1), s, t, out);
  });
  return out;
}

}  // namespace mixtral::ops
