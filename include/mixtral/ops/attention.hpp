// Causal grouped-query attention (Ainslie et al. 2023) over a paged key/value cache.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

#include "mixtral/ops/rows.hpp"

namespace mixtral {

// How keys and values lie in memory. A page holds kPositions positions of one sequence for all layers and
// key/value heads; per layer and head first the keys, transposed [head_dim][32], so that one register holds
// the scores of 16 positions, then the values [32][v_stride]. Results do not depend on how a sequence was
// split into steps, since pages begin at multiples of 32 positions.
struct KvLayout {
  static constexpr Index kPositions = simd::kKvBlock;

  Index n_layers = 0, n_kv_heads = 0, head_dim = 0;

  Index v_stride() const noexcept { return (head_dim + simd::kLanes - 1) / simd::kLanes * simd::kLanes; }
  bool operator==(const KvLayout&) const = default;
  Index head_floats() const noexcept { return kPositions * (head_dim + v_stride()); }
  Index page_floats() const noexcept { return n_layers * n_kv_heads * head_floats(); }
  Index k_offset(Index layer, Index head) const noexcept { return (layer * n_kv_heads + head) * head_floats(); }
  Index v_offset(Index layer, Index head) const noexcept { return k_offset(layer, head) + kPositions * head_dim; }

  // Writes one position's keys and values of one layer.  k, v [n_kv_heads * head_dim]
  void write(float* page, Index layer, Index position, const float* k, const float* v) const noexcept {
    const Index t = position % kPositions;
    for (Index head = 0; head < n_kv_heads; ++head) {
      float* keys = page + k_offset(layer, head) + t;
      for (Index d = 0; d < head_dim; ++d) keys[d * kPositions] = k[head * head_dim + d];
      std::copy_n(v + head * head_dim, head_dim, page + v_offset(layer, head) + t * v_stride());
    }
  }
};

namespace ops {

// Where one row of a batch reads its keys and values: its own position is the last that it sees.
struct AttentionRow {
  const float* const* pages;  // page b of the row's sequence holds positions from 32 b
  Index position;
};

// out = softmax(q k^T / sqrt(head_dim)) v for every row; rows may belong to different sequences. A row sees
// positions <= its own, and with window W > 0 only the last W of these; all of them must have been written.
// q, out [n, n_heads * head_dim]; n_heads a multiple of n_kv_heads.
// Throws Error(kInvalidArgument) on shapes that do not fit.
inline void attention(const OpContext& ctx, TensorView<const float, 2> q, std::span<const AttentionRow> rows,
                      const KvLayout& kv, Index layer, Index window, TensorView<float, 2> out) {
  detail::require_same_shape("attention", "q", q, "out", out);
  const Index group = kv.head_dim > 0 && kv.n_kv_heads > 0 ? q.dim(1) / kv.head_dim / kv.n_kv_heads : 0;
  require(group > 0 && q.dim(1) == group * kv.n_kv_heads * kv.head_dim && static_cast<Index>(rows.size()) == q.dim(0),
          "attention: q is ", shape_text(q.shape()), " for ", rows.size(), " rows, ", kv.n_kv_heads,
          " key/value heads of ", kv.head_dim);
  require(layer >= 0 && layer < kv.n_layers, "attention: layer ", layer, " of ", kv.n_layers);
  const Index padded = kv.v_stride(), n_heads = group * kv.n_kv_heads;
  const ScratchScope scope(ctx.scratch);
  // The kernel writes whole registers: heads of other sizes go through a padded copy.
  const auto wide = padded == kv.head_dim ? out : ctx.scratch.matrix<float>(q.dim(0), n_heads * padded);
  ctx.executor.parallel_for(q.dim(0) * kv.n_kv_heads, [&](Index task, int) {
    const Index t = task / kv.n_kv_heads, head = task % kv.n_kv_heads,
                position = rows[static_cast<std::size_t>(t)].position;
    ctx.table.attention({.q = q.row(t) + head * group * kv.head_dim,
                         .q_stride = kv.head_dim,
                         .group = group,
                         .head_dim = kv.head_dim,
                         .pages = rows[static_cast<std::size_t>(t)].pages,
                         .k_offset = kv.k_offset(layer, head),
                         .v_offset = kv.v_offset(layer, head),
                         .v_stride = padded,
                         .first = window > 0 ? std::max<Index>(0, position - window + 1) : 0,
                         .end = position + 1,
                         .scale = 1.0f / std::sqrt(static_cast<float>(kv.head_dim)),
                         .out = wide.row(t) + head * group * padded,
                         .out_stride = padded});
  });
  if (padded == kv.head_dim) return;
  for (Index t = 0; t < q.dim(0); ++t) {
    for (Index h = 0; h < n_heads; ++h)
      std::copy_n(wide.row(t) + h * padded, kv.head_dim, out.row(t) + h * kv.head_dim);
  }
}

// One whole sequence without a cache: row t is position t.  q, out [n, n_heads * head_dim],
// k, v [n, n_kv_heads * head_dim].  T float, bf16, f16 (computed in float32) or double.
template <class T>
void attention(const OpContext& ctx, TensorView<const T, 2> q, TensorView<const T, 2> k, TensorView<const T, 2> v,
               Index head_dim, Index window, TensorView<T, 2> out) {
  detail::require_same_shape("attention", "k", k, "v", v);
  detail::require_same_shape("attention", "q", q, "out", out);
  require(head_dim > 0 && k.dim(1) > 0 && k.dim(1) % head_dim == 0 && q.dim(1) % k.dim(1) == 0 && q.dim(0) == k.dim(0),
          "attention: q is ", shape_text(q.shape()), ", k is ", shape_text(k.shape()), ", head_dim ", head_dim);
  if constexpr (!detail::kHasKernels<T>) {
    reference::attention(q, k, v, head_dim, window, out);
  } else {
    const ScratchScope scope(ctx.scratch);
    const Index n = q.dim(0), n_pages = (n + KvLayout::kPositions - 1) / KvLayout::kPositions;
    const KvLayout kv{1, k.dim(1) / head_dim, head_dim};
    float** pages = ctx.scratch.take<float*>(n_pages);
    for (Index b = 0; b < n_pages; ++b) {
      pages[b] = ctx.scratch.take<float>(kv.page_floats());
      std::fill_n(pages[b], kv.page_floats(), 0.0f);
    }
    auto* rows = ctx.scratch.take<AttentionRow>(n);
    const auto line = ctx.scratch.matrix<float>(2, k.dim(1));
    const auto wide_q = ctx.scratch.matrix<float>(n, q.dim(1)), wide_out = ctx.scratch.matrix<float>(n, q.dim(1));
    for (Index t = 0; t < n; ++t) {
      kv.write(pages[t / KvLayout::kPositions], 0, t, detail::as_float(ctx.table, k.row(t), k.dim(1), line.row(0)),
               detail::as_float(ctx.table, v.row(t), v.dim(1), line.row(1)));
      const float* wide = detail::as_float(ctx.table, q.row(t), q.dim(1), wide_q.row(t));
      if (wide != wide_q.row(t)) std::copy_n(wide, q.dim(1), wide_q.row(t));
      rows[t] = {pages, t};
    }
    attention(ctx, wide_q, std::span<const AttentionRow>(rows, static_cast<std::size_t>(n)), kv, 0, window, wide_out);
    for (Index t = 0; t < n; ++t) detail::from_float(wide_out.row(t), out.dim(1), out.row(t));
  }
}

}  // namespace ops
}  // namespace mixtral
