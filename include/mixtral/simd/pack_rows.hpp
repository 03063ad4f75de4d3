// Float32 weights to packed ones (core/packed_layout.hpp), a slab of 32 rows at a time. Packing happens once and in
// the background of everything else, but its bits, too, are the same on every architecture.
#pragma once

#include "mixtral/simd/packed_rows.hpp"

namespace mixtral::simd {

struct PackSlabArgs {
  const float* w;  // [32, cols], rows w_stride apart
  Index w_stride;
  Index cols;  // 1 to 512
  const float*
      importance;  // [cols], not negative: how much the squared error of a column counts; nullptr: all the same
  std::byte* out;  // PackedLayout::slab_bytes
};

namespace detail {

// One row of a slab, transposed: lane b of element i is column 32 b + i, so that the sixteen blocks are tried at once,
// each with its own multiplier and zero point.
template <class Arch>
struct P4Search {
  using V = Lanes<Arch>;
  V w[kBlockCols], importance[kBlockCols];
  bool weighted = false;
  V low, high;           // of each block, with zero
  V square;              // of each block, the sum of w * w
  float all_square = 0;  // of all blocks

  // Multipliers and zero points of all blocks, and what the whole numbers v = q - z add up to that follow from them:
  // with these sums, the error at any scale and the best scale cost nothing more.
  struct Choice {
    V m = V::broadcast(1), z = V::broadcast(8);
    V wv = V::zero(), vv = V::zero();  // of each block, the sums of w * v and v * v
    V error = V::broadcast(3e38f);     // of each block
    float scale = 0;
    float total = 3e38f;  // error of all blocks
  };

  static V round(V x) noexcept { return (x + V::broadcast(kRoundingMagic)) - V::broadcast(kRoundingMagic); }
  static V clamp(V x, float least, float most) noexcept { return max(V::broadcast(least), min(V::broadcast(most), x)); }

  void load(const float* row, Index cols, const float* weights) noexcept {
    alignas(64) float column[kBlockCols][kLanes] = {}, weight[kBlockCols][kLanes] = {};
    for (Index b = 0; b * kBlockCols < cols; ++b) {
      const Index n = cols - b * kBlockCols < kBlockCols ? cols - b * kBlockCols : kBlockCols;
      for (Index i = 0; i < n; ++i) column[i][b] = row[b * kBlockCols + i];
    }
    weighted = weights != nullptr;
    for (Index k = 0; weighted && k < cols; ++k) weight[k % kBlockCols][k / kBlockCols] = weights[k];
    low = high = square = V::zero();
    for (Index i = 0; i < kBlockCols; ++i) {
      w[i] = V::load(column[i]);
      low = min(low, w[i]);
      high = max(high, w[i]);
      if (weighted) importance[i] = V::load(weight[i]);
      square = fma(weighted ? w[i] * importance[i] : w[i], w[i], square);
    }
    all_square = square.sum();
  }

  // What the elements of each block are divided by, and the range of m * (q - z).
  struct Grid {
    V step, inverse, limit;  // limit: the largest |q - z|
    Grid(float scale, V m) noexcept {
      const V inverse_m = V::broadcast(1.0f) / m;
      step = V::broadcast(scale) * m;
      inverse = V::broadcast(1.0f / scale) * inverse_m;
      // 127 / m rounded down: it is whole for m = 1 only, and no other fraction is that near to the next number.
      limit = round(fma(V::broadcast(127.0f), inverse_m, V::broadcast(-0.4995f)));
    }
    // Of q - z, as numbers with kRoundingMagic added.
    V least(V z) const noexcept { return max(V::zero() - z, V::zero() - limit) + V::broadcast(kRoundingMagic); }
    V most(V z) const noexcept { return min(V::broadcast(15.0f) - z, limit) + V::broadcast(kRoundingMagic); }
  };

  // Calls f(i, v) with v = q - z of every element.
  template <class F>
  [[gnu::always_inline]] void each(float scale, V m, V z, F&& f) const noexcept {
    const Grid grid(scale, m);
    const V least = grid.least(z), most = grid.most(z), magic = V::broadcast(kRoundingMagic);
    for (Index i = 0; i < kBlockCols; ++i) f(i, max(least, min(most, fma(w[i], grid.inverse, magic))) - magic);
  }

  // The sums of w * v and v * v of each block for N zero points together. Sums take turns: each waits for the one
  // before. One part of the lanes after the other: AVX2 has no registers for both.
  template <int N, bool kWeighted>
  [[gnu::always_inline]] void sums_of(const Grid& grid, const V (&z)[N], V (&wv)[N], V (&vv)[N]) const noexcept {
    using Part = typename V::Part;
    using Register = typename V::Register;
    constexpr int kTurns = 2 / N;
    V leasts[N], mosts[N];
    unroll<N>([&](auto j) {
      leasts[j] = grid.least(z[j]);
      mosts[j] = grid.most(z[j]);
    });
    for (int p = 0; p < V::kParts; ++p) {
      const Register inverse = grid.inverse.part[p], magic = Part::broadcast(kRoundingMagic);
      Register least[N], most[N], wv_sums[kTurns][N], vv_sums[kTurns][N];
      unroll<N>([&](auto j) {
        least[j] = leasts[j].part[p];
        most[j] = mosts[j].part[p];
        unroll<kTurns>([&](auto turn) { wv_sums[turn][j] = vv_sums[turn][j] = Part::broadcast(0.0f); });
      });
      for (Index i = 0; i < kBlockCols; i += kTurns) {
        unroll<kTurns>([&](auto turn) {
          const Register x = w[i + turn].part[p], rounded = Part::fma(x, inverse, magic);
          unroll<N>([&](auto j) {
            const Register v = Part::max(least[j], Part::min(most[j], rounded)) - magic;
            const Register weighted_v = kWeighted ? v * importance[i + turn].part[p] : v;
            wv_sums[turn][j] = Part::fma(x, weighted_v, wv_sums[turn][j]);
            vv_sums[turn][j] = Part::fma(v, weighted_v, vv_sums[turn][j]);
          });
        });
      }
      unroll<N>([&](auto j) {
        wv[j].part[p] = kTurns == 1 ? wv_sums[0][j] : wv_sums[0][j] + wv_sums[kTurns - 1][j];
        vv[j].part[p] = kTurns == 1 ? vv_sums[0][j] : vv_sums[0][j] + vv_sums[kTurns - 1][j];
      });
    }
  }

  // The sum of (w - step * v)^2 of each block.
  V error_of(V step, V wv, V vv) const noexcept { return fma(step, fma(step, vv, wv * V::broadcast(-2.0f)), square); }

  // The zero point that centres the block's range and, for N = 2, the nearest one on the other side.
  template <int N>
  void consider(Choice& best, V m) const noexcept {
    const Grid grid(best.scale, m);
    const V centre = fma((low + high) * V::broadcast(-0.5f), grid.inverse, V::broadcast(7.5f));
    const V near = round(centre), one = V::broadcast(1.0f);
    const V both[2] = {clamp(near, 0, 15), clamp(where_less(near, centre, near + one, near - one), 0, 15)};
    V z[N], wv[N], vv[N];
    unroll<N>([&](auto j) { z[j] = both[j]; });
    weighted ? sums_of<N, true>(grid, z, wv, vv) : sums_of<N, false>(grid, z, wv, vv);
    unroll<N>([&](auto j) {
      const V error = error_of(grid.step, wv[j], vv[j]);
      const auto keep = [&](V& now, V other) { now = where_less(error, best.error, other, now); };
      keep(best.m, m);
      keep(best.z, z[j]);
      keep(best.wv, wv[j]);
      keep(best.vv, vv[j]);
      best.error = min(best.error, error);
    });
  }
  // The scale that fits the whole numbers best (least squares).
  void refit(Choice& best) const noexcept {
    const float wv = (best.wv * best.m).sum(), vv = (best.vv * best.m * best.m).sum();
    if (wv > 0 && vv > 0) best.scale = wv / vv;
    best.total = std::fma(best.scale, std::fma(best.scale, vv, -2.0f * wv), all_square);
    best.error = error_of(V::broadcast(best.scale) * best.m, best.wv, best.vv);
  }
  // The whole numbers of the fitted scale, and of multipliers around them.
  void improve(Choice& best) const noexcept {
    const V m = best.m;
    consider<2>(best, m);
    consider<1>(best, clamp(m - V::broadcast(1.0f), 1, 15));
    consider<1>(best, clamp(m + V::broadcast(1.0f), 1, 15));
    refit(best);
  }

  // Coarse scales first, each with the multipliers that come nearest to 0.9 of the step that holds the whole range,
  // fitted to the numbers; then the best few with neighbouring multipliers and zero points, fitted again; then the best
  // one until nothing changes, at most twice. About thirty looks at the slab.
  Choice run() const noexcept {
    const V step = (high - low) * V::broadcast(1.0f / 15.0f);
    const float widest = step.largest();
    constexpr int kScales = 8, kKept = 4;
    Choice kept[kKept];
    if (!(widest >= 1e-30f)) {  // nothing to store
      return kept[0];
    }
    const V wanted = step * V::broadcast(0.9f);
    const auto multiplier = [&](float scale) { return clamp(round(wanted / V::broadcast(scale)), 1, 15); };
    float scale = widest / 15.0f * 0.86f;
    for (int s = 0; s < kScales; ++s, scale *= 1.075f) {
      Choice c;
      c.scale = scale;
      consider<1>(c, multiplier(scale));
      refit(c);
      for (int i = 0; i < kKept; ++i) {
        if (c.total < kept[i].total) std::swap(c, kept[i]);
      }
    }
    Choice* best = &kept[0];
    for (Choice& c : kept) {
      improve(c);
      if (c.total < best->total) best = &c;
    }
    for (int round = 0; round < 2; ++round) {
      const float before = best->total;
      improve(*best);
      if (!(best->total < before)) break;
    }
    return *best;
  }

  // The nibbles in the order of the columns, and m | z << 4 of every block.
  void write(const Choice& c, std::uint8_t* q, std::uint8_t* mz) const noexcept {
    float m[kLanes], z[kLanes];
    c.m.store(m);
    c.z.store(z);
    for (Index b = 0; b < kSlabBlocks; ++b) {
      mz[b] = static_cast<std::uint8_t>(static_cast<int>(m[b]) | static_cast<int>(z[b]) << 4);
    }
    if (c.scale == 0) {
      std::memset(q, 8, kSlabCols);
      return;
    }
    each(c.scale, c.m, c.z, [&](Index i, V v) {
      float value[kLanes];
      std::uint32_t bits[kLanes];
      (v + c.z + V::broadcast(kRoundingMagic)).store(value);
      std::memcpy(bits, value, sizeof bits);
      for (Index b = 0; b < kSlabBlocks; ++b) q[b * kBlockCols + i] = static_cast<std::uint8_t>(bits[b]);
    });
  }
};

template <class Arch>
bool all_finite(const float* x, Index n) noexcept {
  using V = Lanes<Arch>;
  V bad = V::zero();
  Index k = 0;
  for (; k + kLanes <= n; k += kLanes) bad = fma(V::load(x + k), V::zero(), bad);  // NaN once one is not finite
  if (k < n) bad = fma(V::load_first(x + k, n - k), V::zero(), bad);
  return bad.sum() == 0;
}

template <class Arch>
std::uint32_t load_quad(const std::uint8_t* p) noexcept {
  std::uint32_t quad;
  std::memcpy(&quad, p, sizeof quad);
  return quad;
}

// Lines of four columns of sixteen rows; P4's have two quads, a block apart.
template <class Arch, int Bits>
void write_tiles(const std::uint8_t (&q)[kPanelRows][kSlabCols], Index tiles, std::byte* out) noexcept {
  for (Index tile = 0; tile < tiles; ++tile) {
    for (Index half = 0; half < 2; ++half) {
      for (Index k = tile * kTileCols; k < tile * kTileCols + kTileCols * Bits / 8; k += 4) {
        std::uint32_t line[kHalfRows];
        for (Index r = 0; r < kHalfRows; ++r) {
          const std::uint8_t* row = q[half * kHalfRows + r] + k;
          line[r] = load_quad<Arch>(row);
          if constexpr (Bits == 4) line[r] |= load_quad<Arch>(row + kBlockCols) << 4;
        }
        std::memcpy(out, line, sizeof line);
        out += sizeof line;
      }
    }
  }
}

}  // namespace detail

// False if a weight is not finite: then `out` is unspecified.
template <class Arch>
bool pack_slab_p4(const PackSlabArgs& a) noexcept {
  const Index tiles = (a.cols + kTileCols - 1) / kTileCols;
  std::uint8_t q[kPanelRows][kSlabCols], mz[kPanelRows][kSlabBlocks];
  float scale[kPanelRows] = {};
  std::memset(q, 8, sizeof q);
  std::memset(mz, 0x81, sizeof mz);
  detail::P4Search<Arch> search;
  for (Index r = 0; r < kPanelRows; ++r) {
    const float* row = a.w + r * a.w_stride;
    search.load(row, a.cols, a.importance);
    // Large numbers have infinite squares, too.
    if (!std::isfinite(search.all_square) && !detail::all_finite<Arch>(row, a.cols)) return false;
    const auto choice = search.run();
    search.write(choice, q[r], mz[r]);
    scale[r] = choice.scale;
  }
  std::memcpy(a.out, scale, sizeof scale);
  std::byte* out = a.out + sizeof scale;
  for (Index b = 0; b < 2 * tiles; ++b) {
    for (Index r = 0; r < kPanelRows; ++r) *out++ = std::byte{mz[r][b]};
  }
  detail::write_tiles<Arch, 4>(q, tiles, out);
  return true;
}

template <class Arch>
bool pack_slab_p8(const PackSlabArgs& a) noexcept {
  const Index tiles = (a.cols + kTileCols - 1) / kTileCols;
  std::uint8_t q[kPanelRows][kSlabCols];
  float scale[kPanelRows] = {};
  std::memset(q, 128, sizeof q);
  bool finite = true;
  for (Index r = 0; r < kPanelRows; ++r) {
    std::int8_t values[kSlabCols];
    SlabMeta meta;
    quantize_slab<Arch>(a.w + r * a.w_stride, a.cols, values, &meta);
    finite = finite && meta.scale >= 0;
    scale[r] = meta.scale;
    for (Index k = 0; k < kSlabCols; ++k) q[r][k] = static_cast<std::uint8_t>(values[k] + 128);
  }
  std::memcpy(a.out, scale, sizeof scale);
  detail::write_tiles<Arch, 8>(q, tiles, a.out + sizeof scale);
  return finite;
}

}  // namespace mixtral::simd
