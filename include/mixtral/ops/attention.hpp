// Causal grouped-query attention (Ainslie et al. 2023) over a paged key/value cache.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <span>

#include "mixtral/ops/kv_layout.hpp"
#include "mixtral/ops/rows.hpp"

namespace mixtral {

namespace ops {

// Where one row of a batch reads its keys and values: its own position is the last that it sees.
struct AttentionRow {
  const std::byte* const* pages;  // page b of the row's sequence holds positions from 32 b
  Index position;
};

namespace detail {

// Neighbouring rows that are neighbouring tokens of one sequence.
struct AttentionTile {
  Index row, tokens;
  Index position;       // of the first token
  Index chunk, chunks;  // that the tile sees: the first one and how many
};

struct AttentionPlan {
  std::span<const AttentionTile> tiles;
  Index most_tokens = 0, most_chunks = 0;  // of a tile
};

inline constexpr Index kAttentionRows = 64;  // of a tile: their queries and sums stay in the L1 and L2 caches
// Fewer tiles for each worker are cut into chunks, if all their results take no more than so many floats.
inline constexpr Index kFewTasks = 16, kMostFloats = Index{1} << 23;

inline AttentionPlan plan_attention(Scratch& scratch, std::span<const AttentionRow> rows, Index group, Index window) {
  const Index most = std::max<Index>(kAttentionRows / group, 1);
  auto* tiles = scratch.take<AttentionTile>(static_cast<Index>(rows.size()));
  std::size_t n = 0;
  const AttentionRow* before = nullptr;
  for (const AttentionRow& row : rows) {
    const bool follows = before != nullptr && before->pages == row.pages && row.position == before->position + 1;
    if (follows && tiles[n - 1].tokens < most) {
      ++tiles[n - 1].tokens;
    } else {
      tiles[n++] = {&row - rows.data(), 1, row.position, 0, 0};
    }
    before = &row;
  }
  AttentionPlan plan{{tiles, n}};
  for (AttentionTile& tile : std::span(tiles, n)) {
    const Index first = window > 0 ? std::max<Index>(0, tile.position - window + 1) : 0;
    tile.chunk = first / simd::kKvChunk;
    tile.chunks = (tile.position + tile.tokens - 1) / simd::kKvChunk + 1 - tile.chunk;
    plan.most_tokens = std::max(plan.most_tokens, tile.tokens);
    plan.most_chunks = std::max(plan.most_chunks, tile.chunks);
  }
  return plan;
}

// One attention over a cache, cut into tasks.
struct Attention {
  const OpContext& ctx;
  TensorView<const float, 2> q;
  std::span<const AttentionRow> rows;
  const KvLayout& kv;
  Index layer, window, group;
  TensorView<float, 2> out;

  // The chunks' results for one tile and head.
  struct Part {
    float* sums;                // [chunks][rows, v_stride]
    simd::SoftmaxState* state;  // [chunks][rows]
  };

  Index stride() const noexcept { return simd::kv_stride(kv.head_dim); }
  Index chunk_floats(Index tokens) const noexcept { return tokens * group * stride(); }

  void run_chunk(const AttentionTile& tile, Index head, Index chunk, const Part& part, float* work) const noexcept {
    const KvBlockLayout block = kv.block();
    const Index offset = kv.block_offset(layer, head), begin = (tile.chunk + chunk) * simd::kKvChunk;
    ctx.table.attention[kv.dtype]({.q = q.row(tile.row) + head * group * kv.head_dim,
                                   .q_stride = kv.head_dim,
                                   .q_token_stride = q.row_stride(),
                                   .tokens = tile.tokens,
                                   .group = group,
                                   .head_dim = kv.head_dim,
                                   .position = tile.position,
                                   .window = window,
                                   .pages = rows[static_cast<std::size_t>(tile.row)].pages,
                                   .scale_offset = offset,
                                   .k_offset = offset + block.k_offset(),
                                   .v_offset = offset + block.v_offset(),
                                   .v_stride = stride(),
                                   .begin = begin,
                                   .end = begin + simd::kKvChunk,
                                   .scale = 1.0f / std::sqrt(static_cast<float>(kv.head_dim)),
                                   .work = work,
                                   .out = part.sums + chunk * chunk_floats(tile.tokens),
                                   .state = part.state + chunk * tile.tokens * group});
  }
  void combine(const AttentionTile& tile, Index head, const Part& part) const noexcept {
    ctx.table.combine_attention({.sums = part.sums,
                                 .state = part.state,
                                 .chunks = tile.chunks,
                                 .rows = tile.tokens * group,
                                 .v_stride = stride(),
                                 .group = group,
                                 .head_dim = kv.head_dim,
                                 .out = out.row(tile.row) + head * group * kv.head_dim,
                                 .out_token_stride = out.row_stride()});
  }

  // Room for the results of n tiles or workers.
  struct Parts {
    TensorView<float, 2> sums;
    TensorView<simd::SoftmaxState, 2> state;
    Part operator[](Index i) const noexcept { return {sums.row(i), state.row(i)}; }
  };
  Parts take_parts(const AttentionPlan& plan, Index n) const {
    return {ctx.scratch.matrix<float>(n, plan.most_chunks * chunk_floats(plan.most_tokens)),
            ctx.scratch.matrix<simd::SoftmaxState>(n, plan.most_chunks * plan.most_tokens * group)};
  }

  // A task is one tile of one head: of all its chunks, or of one if there is too little to do otherwise.
  void run(const AttentionPlan& plan) const {
    const ScratchScope scope(ctx.scratch);
    const Index tasks = static_cast<Index>(plan.tiles.size()) * kv.n_kv_heads, workers = ctx.executor.n_workers();
    const auto work =
        ctx.scratch.matrix<float>(workers, simd::attention_work(plan.most_tokens * group, kv.head_dim, stride()));
    const auto tile_of = [&](Index task) -> const AttentionTile& {
      return plan.tiles[static_cast<std::size_t>(task / kv.n_kv_heads)];
    };
    if (plan.most_chunks == 1 || tasks >= kFewTasks * workers ||
        tasks * plan.most_chunks * chunk_floats(plan.most_tokens) > kMostFloats) {
      const Parts parts = take_parts(plan, workers);
      ctx.executor.parallel_for(tasks, [&](Index task, int worker) {
        const AttentionTile& tile = tile_of(task);
        const Index head = task % kv.n_kv_heads;
        for (Index c = 0; c < tile.chunks; ++c) run_chunk(tile, head, c, parts[worker], work.row(worker));
        combine(tile, head, parts[worker]);
      });
      return;
    }
    const Parts parts = take_parts(plan, tasks);
    auto* done = ctx.scratch.take<Index>(tasks);
    std::fill_n(done, tasks, Index{0});
    ctx.executor.parallel_for(tasks * plan.most_chunks, [&](Index i, int worker) {
      const Index task = i / plan.most_chunks, c = i % plan.most_chunks, head = task % kv.n_kv_heads;
      const AttentionTile& tile = tile_of(task);
      if (c >= tile.chunks) return;
      run_chunk(tile, head, c, parts[task], work.row(worker));
      // Whoever completes a tile combines its chunks.
      if (std::atomic_ref(done[task]).fetch_add(1, std::memory_order_acq_rel) + 1 == tile.chunks) {
        combine(tile, head, parts[task]);
      }
    });
  }
};

}  // namespace detail

// Scratch of one attention at most, for `group` query heads to a key/value head and positions up to `positions`.
inline Index attention_scratch_bytes(const KvLayout& kv, Index group, Index positions, Index workers) noexcept {
  const Index rows = std::max(detail::kAttentionRows, group), stride = simd::kv_stride(kv.head_dim);
  const Index chunks = (positions + simd::kKvChunk - 1) / simd::kKvChunk;
  const Index result = chunks * rows * (stride + 2);  // of a tile: sums and two numbers a row
  const Index cut =
      chunks == 1 ? 0 : std::min(detail::kFewTasks * workers * result, detail::kMostFloats / stride * (stride + 2));
  return (workers * simd::attention_work(rows, kv.head_dim, stride) + std::max(workers * result, cut)) *
         static_cast<Index>(sizeof(float));
}

// out = softmax(q k^T / sqrt(head_dim)) v for every row; rows may belong to different sequences. A row sees
// positions <= its own, and with window W > 0 only the last W of these; all of them must have been written.
// q, out [n, n_heads * head_dim]; n_heads a multiple of n_kv_heads.
// Throws Error(kInvalidArgument) on shapes that do not fit.
inline void attention(const OpContext& ctx, TensorView<const float, 2> q, std::span<const AttentionRow> rows,
                      const KvLayout& kv, Index layer, Index window, TensorView<float, 2> out) {
  require_same_shape("attention", "q", q, "out", out);
  const Index group = kv.head_dim > 0 && kv.n_kv_heads > 0 ? q.dim(1) / kv.head_dim / kv.n_kv_heads : 0;
  require(group > 0 && q.dim(1) == group * kv.n_kv_heads * kv.head_dim && static_cast<Index>(rows.size()) == q.dim(0),
          "attention: q is ", q.shape(), " for ", rows.size(), " rows, ", kv.n_kv_heads, " key/value heads of ",
          kv.head_dim);
  require(layer >= 0 && layer < kv.n_layers, "attention: layer ", layer, " of ", kv.n_layers);
  require(is_kv_type(kv.dtype), "attention: keys and values in ", name_of(kv.dtype), ", expected F32, BF16 or I8");
  if (rows.empty()) return;
  const ScratchScope scope(ctx.scratch);
  detail::Attention{ctx, q, rows, kv, layer, window, group, out}.run(
      detail::plan_attention(ctx.scratch, rows, group, window));
}

// One whole sequence without a cache: row t is position t.  q, out [n, n_heads * head_dim],
// k, v [n, n_kv_heads * head_dim].  T float, bf16, f16 (computed in float32) or double.
template <class T>
void attention(const OpContext& ctx, TensorView<const T, 2> q, TensorView<const T, 2> k, TensorView<const T, 2> v,
               Index head_dim, Index window, TensorView<T, 2> out) {
  require_same_shape("attention", "k", k, "v", v);
  require_same_shape("attention", "q", q, "out", out);
  require(head_dim > 0 && k.dim(1) > 0 && k.dim(1) % head_dim == 0 && q.dim(1) % k.dim(1) == 0 && q.dim(0) == k.dim(0),
          "attention: q is ", q.shape(), ", k is ", k.shape(), ", head_dim ", head_dim);
  if constexpr (!kHasKernels<T>) {
    reference::attention(q, k, v, head_dim, window, out);
  } else {
    const ScratchScope scope(ctx.scratch);
    const Index n = q.dim(0), n_pages = (n + KvLayout::kPositions - 1) / KvLayout::kPositions;
    const KvLayout kv{1, k.dim(1) / head_dim, head_dim};
    std::byte** pages = ctx.scratch.take<std::byte*>(n_pages);
    for (Index b = 0; b < n_pages; ++b) {
      pages[b] = ctx.scratch.take<std::byte>(kv.page_bytes());
      std::fill_n(pages[b], kv.page_bytes(), std::byte{0});
    }
    auto* rows = ctx.scratch.take<AttentionRow>(n);
    const auto line = ctx.scratch.matrix<float>(2, k.dim(1));
    const auto wide_q = ctx.scratch.matrix<float>(n, q.dim(1)), wide_out = ctx.scratch.matrix<float>(n, q.dim(1));
    for (Index t = 0; t < n; ++t) {
      kv.write(pages[t / KvLayout::kPositions], 0, t, as_float(ctx.table, k.row(t), k.dim(1), line.row(0)),
               as_float(ctx.table, v.row(t), v.dim(1), line.row(1)));
      const float* wide = as_float(ctx.table, q.row(t), q.dim(1), wide_q.row(t));
      if (wide != wide_q.row(t)) std::copy_n(wide, q.dim(1), wide_q.row(t));
      rows[t] = {pages, t};
    }
    attention(ctx, wide_q, std::span<const AttentionRow>(rows, static_cast<std::size_t>(n)), kv, 0, window, wide_out);
    for (Index t = 0; t < n; ++t) from_float(wide_out.row(t), out.dim(1), out.row(t));
  }
}

}  // namespace ops
}  // namespace mixtral
