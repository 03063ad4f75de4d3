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
  V low, high;  // of each block, with zero

  struct Choice {
    V error = V::broadcast(3e38f);  // of each block
    V m = V::broadcast(1), z = V::broadcast(8);
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
    low = high = V::zero();
    for (Index i = 0; i < kBlockCols; ++i) {
      w[i] = V::load(column[i]);
      low = min(low, w[i]);
      high = max(high, w[i]);
    }
    if (!weighted) return;
    for (Index k = 0; k < cols; ++k) weight[k % kBlockCols][k / kBlockCols] = weights[k];
    for (Index i = 0; i < kBlockCols; ++i) importance[i] = V::load(weight[i]);
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

  // Squared errors of each block for N zero points together. Sums take turns: each waits for the one before. One part
  // of the lanes after the other: AVX2 has no registers for both.
  template <int N, bool kWeighted>
  [[gnu::always_inline]] void errors_of(const Grid& grid, const V (&z)[N], V (&errors)[N]) const noexcept {
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
      Register least[N], most[N], sums[kTurns][N];
      unroll<N>([&](auto j) {
        least[j] = leasts[j].part[p];
        most[j] = mosts[j].part[p];
        unroll<kTurns>([&](auto turn) { sums[turn][j] = Part::broadcast(0.0f); });
      });
      for (Index i = 0; i < kBlockCols; i += kTurns) {
        unroll<kTurns>([&](auto turn) {
          const Register x = w[i + turn].part[p], rounded = Part::fma(x, inverse, magic);
          unroll<N>([&](auto j) {
            const Register rest = Part::fma(x, inverse, magic - Part::max(least[j], Part::min(most[j], rounded)));
            const Register weighted_rest = kWeighted ? rest * importance[i + turn].part[p] : rest;
            sums[turn][j] = Part::fma(weighted_rest, rest, sums[turn][j]);
          });
        });
      }
      unroll<N>([&](auto j) {
        const Register sum = kTurns == 1 ? sums[0][j] : sums[0][j] + sums[kTurns - 1][j], step = grid.step.part[p];
        errors[j].part[p] = sum * step * step;
      });
    }
  }
  template <int N>
  void errors(const Grid& grid, const V (&z)[N], V (&out)[N]) const noexcept {
    weighted ? errors_of<N, true>(grid, z, out) : errors_of<N, false>(grid, z, out);
  }

  // The scale that fits the chosen whole numbers best (least squares).
  template <bool kWeighted>
  [[gnu::always_inline]] float fitted_scale_of(const Choice& c) const noexcept {
    V wv = V::zero(), vv = V::zero();
    each(
        c.scale, c.m, c.z, [&](Index i, V v) __attribute__((always_inline)) {
          const V u = kWeighted ? v * importance[i] : v;
          wv = fma(w[i], u, wv);
          vv = fma(v, u, vv);
        });
    const float denominator = (vv * c.m * c.m).sum();
    const float fitted = denominator > 0 ? (wv * c.m).sum() / denominator : 0;
    return fitted > 0 ? fitted : c.scale;
  }

  // The zero point that centres the block's range and, for N = 2, the nearest one on the other side.
  template <int N>
  void consider(Choice& best, V m) const noexcept {
    const Grid grid(best.scale, m);
    const V centre = fma((low + high) * V::broadcast(-0.5f), grid.inverse, V::broadcast(7.5f));
    const V near = round(centre), one = V::broadcast(1.0f);
    const V both[2] = {clamp(near, 0, 15), clamp(where_less(near, centre, near + one, near - one), 0, 15)};
    V z[N], e[N];
    unroll<N>([&](auto j) { z[j] = both[j]; });
    errors(grid, z, e);
    unroll<N>([&](auto j) {
      best.m = where_less(e[j], best.error, m, best.m);
      best.z = where_less(e[j], best.error, z[j], best.z);
      best.error = min(best.error, e[j]);
    });
    best.total = best.error.sum();
  }
  // Multipliers around `m`.
  void consider_around(Choice& best, V m) const noexcept {
    for (const float step : {0.0f, -1.0f, 1.0f}) consider<2>(best, clamp(m + V::broadcast(step), 1, 15));
  }
  void refit(Choice& best) const noexcept {
    Choice fitted;
    fitted.scale = weighted ? fitted_scale_of<true>(best) : fitted_scale_of<false>(best);
    fitted.m = best.m;
    fitted.z = best.z;
    const V z[1] = {best.z};
    V e[1];
    errors({fitted.scale, best.m}, z, e);
    fitted.error = e[0];
    fitted.total = e[0].sum();
    if (fitted.total < best.total) best = fitted;
  }

  // Coarse scales first, each with the multipliers that come nearest to 0.9 of the step that holds the whole range;
  // then the best few, fitted to the numbers, with neighbouring multipliers and zero points, and fitted again; then the
  // best one until nothing changes, at most twice. About sixty looks at the slab.
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
      for (int i = 0; i < kKept; ++i) {
        if (c.total < kept[i].total) std::swap(c, kept[i]);
      }
    }
    Choice* best = &kept[0];
    for (Choice& c : kept) {
      refit(c);
      consider_around(c, c.m);
      refit(c);
      if (c.total < best->total) best = &c;
    }
    for (int round = 0; round < 2; ++round) {
      const float before = best->total;
      consider_around(*best, best->m);
      refit(*best);
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
    if (!detail::all_finite<Arch>(row, a.cols)) return false;
    search.load(row, a.cols, a.importance);
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
