// What the fast products with packed weights share: the way through panels and slabs, and how weights are asked for
// ahead of their use. Included by files of one instruction set each, after <immintrin.h>, hence the unnamed namespace.
#pragma once

#include "kernels/fill.hpp"
#include "mixtral/simd/packed_rows.hpp"

namespace mixtral::kernels {
namespace {

using simd::PackedLinearArgs;
using simd::SlabMeta;
using simd::unroll;
using simd::with_constant;

// So many panels a product of a few tokens reads in turns, a tile of each.
constexpr int kStreams = 2;

// Asks for a line into the L2 cache or the L1 cache. In assembly: gcc 12 takes a function that does nothing else for
// one without effect, and leaves out calls of it.
inline void prefetch_l2(const std::byte* line) noexcept { asm volatile("prefetcht1 %0" : : "m"(*line)); }
inline void prefetch_l1(const std::byte* line) noexcept { asm volatile("prefetcht0 %0" : : "m"(*line)); }

// While one line of weights is used: asks for those that follow, far ahead into the L2 cache, a little ahead into the
// L1 cache. Measured on Intel and AMD; bench/README.md has the figures of other ways.
inline void ask(const std::byte* line) noexcept {
  prefetch_l2(line + simd::kAheadL2);
  prefetch_l1(line + simd::kAheadL1);
}

// One slab of a panel, and where its parts are.
template <DType kType>
struct Slab {
  static constexpr Index kHalfTile = PackedLayout{kType}.tile_bytes() / 2;
  const std::byte* data;
  Index tiles;

  const float* scales() const noexcept { return reinterpret_cast<const float*>(data); }
  // P4's m | z << 4 of block b of a tile, from a row on.
  const std::byte* mz(Index tile, Index b, Index row) const noexcept {
    return data + PackedLayout::kRowScaleBytes + (2 * tile + b) * kPanelRows + row;
  }
  const std::byte* half(Index tile, Index h) const noexcept {
    return data + PackedLayout{kType}.scale_bytes(tiles) + (2 * tile + h) * kHalfTile;
  }
  Index bytes() const noexcept { return PackedLayout{kType}.slab_bytes(tiles); }
};

template <DType kType>
Slab<kType> slab_of(const PackedLinearArgs& a, Index panel, Index s) noexcept {
  const PackedLayout layout{kType, a.cols};
  return {a.w + panel * layout.panel_bytes() + layout.slab_offset(s), layout.slab_tiles(s)};
}

// The same slab of some panels.
template <DType kType>
struct Slabs {
  const std::byte* data;
  Index step, tiles;  // bytes from one to the next
  Slab<kType> operator[](Index p) const noexcept { return {data + p * step, tiles}; }
};

// A slab's activations, from a token on: of each tile 64 bytes a token.
struct SlabColumns {
  const std::int8_t* q;
  Index tile_step;  // bytes from one tile to the next
  const std::int8_t* tile(Index i) const noexcept { return q + i * tile_step; }
  SlabColumns from(Index t) const noexcept { return {q + t * kTileCols, tile_step}; }
};
SlabColumns columns_of(const PackedLinearArgs& a, Index s, Index t0) noexcept {
  return {a.q + s * a.slab_tokens * kSlabCols + t0 * kTileCols, a.slab_tokens * kTileCols};
}

// The sums [tokens][32] of one panel become outputs.
inline void store(const PackedLinearArgs& a, Index panel, Index t0, Index tokens, const float* sums) noexcept {
  const Index r0 = panel * kPanelRows;
  const auto rows = static_cast<std::size_t>(a.rows - r0 < kPanelRows ? a.rows - r0 : kPanelRows);
  for (Index t = 0; t < tokens; ++t) {
    std::memcpy(a.y + (t0 + t) * a.y_stride + r0, sums + t * kPanelRows, rows * sizeof(float));
  }
}

// T tokens: weights stream through once, kStreams runs of panels side by side, so that what is asked for ahead is what
// the same stream uses next: product(std::integral_constant<int, P>, slabs, columns, meta, sums [P][T][32]) adds one
// slab's of P panels.
template <DType kType, int T, class Product>
void stream_panels(const PackedLinearArgs& a, Product&& product) noexcept {
  const PackedLayout layout{kType, a.cols};
  const Index panels = panels_of(a.rows), run = panels / kStreams;
  // P panels, `step` apart.
  const auto multiply = [&](auto n, Index panel, Index step) {
    alignas(64) float sums[n * T * kPanelRows] = {};
    for (Index s = 0; s < layout.slabs(); ++s) {
      const Slab<kType> slab = slab_of<kType>(a, panel, s);
      product(n, Slabs<kType>{slab.data, step * layout.panel_bytes(), slab.tiles}, columns_of(a, s, 0),
              a.meta + s * a.slab_tokens, sums);
    }
    for (Index p = 0; p < n; ++p) store(a, panel + p * step, 0, T, sums + p * T * kPanelRows);
  };
  for (Index i = 0; i < run; ++i) multiply(std::integral_constant<int, kStreams>{}, i, run);
  for (Index i = run * kStreams; i < panels; ++i) multiply(std::integral_constant<int, 1>{}, i, 0);
}

// Any number of tokens, some at a time whose float32 sums (24 KiB) wait while a panel is multiplied; most experts of a
// prompt of 512 have fewer.
// product(slab, columns, meta, tokens, sums [tokens][32]) adds one slab's.
template <DType kType, Index kTokens = 192, class Product>
void multiply_panels(const PackedLinearArgs& a, Product&& product) noexcept {
  alignas(64) float sums[kTokens * kPanelRows];
  for (Index t0 = 0; t0 < a.tokens; t0 += kTokens) {
    const Index tokens = a.tokens - t0 < kTokens ? a.tokens - t0 : kTokens;
    for (Index panel = 0; panel * kPanelRows < a.rows; ++panel) {
      std::memset(sums, 0, static_cast<std::size_t>(tokens * kPanelRows) * sizeof(float));
      for (Index s = 0; s < PackedLayout{kType, a.cols}.slabs(); ++s) {
        product(slab_of<kType>(a, panel, s), columns_of(a, s, t0), a.meta + s * a.slab_tokens + t0, tokens, sums);
      }
      store(a, panel, t0, tokens, sums);
    }
  }
}

// f(t, n) for tokens in groups from t on, of n <= kMost, a constant. The last two groups share, if the last one's few
// sums would wait for each other.
template <int kMost, class F>
void for_groups(Index tokens, F&& f) noexcept {
  for (Index t = 0; t < tokens;) {
    const Index rest = tokens - t, size = rest <= kMost ? rest : rest < kMost + kMost / 2 ? (rest + 1) / 2 : kMost;
    with_constant<kMost>(size, [&](auto n) { f(t, n); });
    t += size;
  }
}

}  // namespace
}  // namespace mixtral::kernels
