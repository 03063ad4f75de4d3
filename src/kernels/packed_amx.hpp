// Products with packed weights for many tokens on a matrix unit (amx_tiles.hpp). A slab's bytes lie as the unit wants
// its second operand: 16 column quads of 16 rows; activations as its first: 16 tokens of 64 columns. The sums are whole
// numbers, so the bits are those of every other kernel.
//
// The unit works through blocks of 32 tokens by one slab of a panel. What the vector unit has to do, the sums of the
// block before and the bytes of the slab after, stands between the unit's instructions and is nearly free while the L1
// cache serves both. So as little as possible lives there: one slab's bytes (16 KiB), one block's products (4 KiB),
// each token's scale. On Emerald Rapids 128 tokens take 55 (w13) to 60 ns (w2) for four products of tiles, 28 being
// what they take from the L1 cache alone. Measured one by one: activations that may stay in the L1 cache + 8, rows of
// activations 512 bytes apart + 7, a second slab's bytes beside the first's + 5.
#pragma once

#include "kernels/vnni_zmm.hpp"

namespace mixtral::kernels {
namespace {

constexpr Index kTileRows = 16, kTileBytes = kTileRows * kTileCols, kTileDots = kTileRows * kTileRows;
constexpr Index kBlockTokens = 2 * kTileRows;
// Fewer tokens fill no tile.
constexpr Index kFewestTileTokens = 16;
// float32 sums wait in the L2 cache (kTileWork) while panels side by side are multiplied by one slab's activations:
// those of w2, more than the L2 cache holds, are read once for all of these panels.
constexpr Index kTileTokens = 256, kTilePanels = kSlabTiles;
// More activations than these (1 MiB) are not in the L2 cache when their slab begins.
constexpr Index kNearActivations = Index{1} << 20;

// Lines that are asked for, as many in each of `steps` steps.
struct Lines {
  const std::byte *next = nullptr, *end = nullptr;
  Index a_step = 0;
  void begin(const void* from, Index bytes, Index steps) noexcept {
    next = static_cast<const std::byte*>(from);
    end = next + bytes;
    a_step = (bytes / 64 + steps - 1) / steps * 64;
  }
  void step() noexcept {
    const std::byte *line = next, *const last = end - line < a_step ? end : line + a_step;
    next = last;
    for (; line < last; line += 64) prefetch_l2(line);
  }
};

// What a token's products are multiplied by, and what P8's carry: those of one slab, side by side.
struct TokenScales {
  alignas(64) float scale[kTileTokens];
  std::int32_t bias[kTileTokens];
};

// What the vector unit does between the products of a block. Members are set one by one: a copy of the whole would wait
// until what was stored before it, products as well, has reached the cache.
template <DType kType>
struct Meanwhile {
  // The block before: its products become sums.
  const std::int32_t* dots = nullptr;  // [2 tiles of tokens][2 halves][16 tokens][16 rows]
  const TokenScales* token_scales = nullptr;
  Index first_token = 0;
  const float* scales = nullptr;  // [32]
  const float* sums = nullptr;    // [tokens][32]
  float* to = nullptr;            // [tokens][to_stride], the outputs after the last slab
  Index to_stride = 0;
  __mmask16 not_first = 0;  // all but the first slab: there are sums
  Index next = 0, tokens = 0, tokens_a_step = 0;
  Index first_row = 0, second_row = 0;  // of the dots, less its token: where those of the tiles begin
  // The slab after this one: its tiles become bytes where those of this one were, once the last block has had them.
  Slab<kType> slab{};
  std::byte* bytes = nullptr;
  bool is_last = false;
  Lines weights, activations;

  void expand(Index tile, Index half) noexcept {
    if constexpr (kType == DType::kP4) {
      if (is_last && tile < slab.tiles) expand_rows<Zmm>(slab, tile, half * kHalfRows, 0, bytes);
    }
  }
  void step() noexcept {
    weights.step();
    activations.step();
    add(tokens_a_step);
  }
  // The products of `count` more tokens.
  void add(Index count) noexcept {
    const Index end = next + count < tokens ? next + count : tokens;
    if (next == end) return;
    const __m512 low = Zmm::load_floats(scales), high = Zmm::load_floats(scales + kHalfRows);
    const std::int32_t* const from = dots;
    const float* const scale_of = token_scales->scale + first_token;
    const std::int32_t* const bias_of = token_scales->bias + first_token;
    const float* const before = sums;
    float* const out = to;
    const Index stride = to_stride;
    const __mmask16 mask = not_first;
    const Index rows[2] = {first_row, second_row};
    for (Index t = next; t < end; ++t) {
      const std::int32_t* products = from + (t + (t < kTileRows ? rows[0] : rows[1])) * kTileRows;
      const __m512 scale = _mm512_set1_ps(scale_of[t]);
      const auto add_half = [&](Index h, __m512 scales_w) {
        __m512i dot = _mm512_load_si512(products + h * kTileDots);
        if constexpr (kType == DType::kP8) dot = _mm512_sub_epi32(dot, _mm512_set1_epi32(bias_of[t]));
        const __m512 sum = _mm512_maskz_load_ps(mask, before + t * kPanelRows + h * kHalfRows);
        _mm512_storeu_ps(out + t * stride + h * kHalfRows,
                         _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(scales_w, scale), sum));
      };
      add_half(0, low);
      add_half(1, high);
    }
    next = end;
  }
};

// N times 16 tokens by one slab. P4's bytes are signed, P8's carry 128.  w [tile][half][16 quads][64], x0, x1: the
// tiles' first tokens, dots as Meanwhile has them
template <int N, DType kType, class Tiles>
void multiply_tiles(Tiles& unit, Index tiles, const std::byte* w, const SlabColumns& x0, const SlabColumns& x1,
                    Meanwhile<kType>& meanwhile, std::int32_t* dots) noexcept {
  const auto multiply = [&](auto c, auto a, auto b) {
    if constexpr (kType == DType::kP4) unit.template multiply_signed<c, a, b>();
    if constexpr (kType == DType::kP8) unit.template multiply_bytes<c, a, b>();
  };
  constexpr std::integral_constant<int, 0> c0;
  constexpr std::integral_constant<int, 1> c1;
  constexpr std::integral_constant<int, 2> c2;
  constexpr std::integral_constant<int, 3> c3;
  constexpr std::integral_constant<int, 4> a0;
  constexpr std::integral_constant<int, 5> a1;
  constexpr std::integral_constant<int, 6> b0;
  constexpr std::integral_constant<int, 7> b1;
  unroll<2 * N>([&](auto c) { unit.template zero<c>(); });
  for (Index tile = 0; tile < tiles; ++tile) {
    unit.template stream<a0>(x0.tile(tile), kTileCols);
    unit.template load<b0>(w + 2 * tile * kTileBytes, kTileCols);
    multiply(c0, a0, b0);
    unit.template load<b1>(w + (2 * tile + 1) * kTileBytes, kTileCols);
    multiply(c1, a0, b1);
    meanwhile.expand(tile, 0);
    if constexpr (N == 2) {
      unit.template stream<a1>(x1.tile(tile), kTileCols);
      multiply(c2, a1, b0);
    }
    meanwhile.expand(tile, 1);
    if constexpr (N == 2) multiply(c3, a1, b1);
    meanwhile.step();
  }
  unroll<2 * N>([&](auto c) { unit.template store<c>(dots + c * kTileDots); });
}

// Some panels side by side by some tokens, slab by slab: all of the panels by a slab's activations, then the next slab.
template <DType kType, class Tiles>
class TileGroup {
 public:
  TileGroup(Tiles& unit, const PackedLinearArgs& a, float* sums) noexcept : unit_(unit), a_(a), sums_(sums) {
    meanwhile_.bytes = room_;
    meanwhile_.dots = dots_;
  }

  void multiply(Index panel, Index panels, Index t0, Index tokens) noexcept {
    panel_ = panel, panels_ = panels, t0_ = t0, tokens_ = tokens;
    const Index n = panels * slabs_;
    meanwhile_.slab = slab(0);
    meanwhile_.is_last = true;
    for (Index tile = 0; tile < meanwhile_.slab.tiles; ++tile) {
      for (Index half = 0; half < 2; ++half) meanwhile_.expand(tile, half);
    }
    for (Index i = 0; i < n; ++i) multiply_slab(i, n);
    meanwhile_.add(kBlockTokens);
    if (Index p = panels - 1; !is_whole(p)) store(a_, panel + p, t0, tokens, sums_ + p * tokens * kPanelRows);
  }

 private:
  // Of the order in which they are multiplied; the first ones of the panels after these follow.
  Slab<kType> slab(Index i) const noexcept {
    const Index rest = i - panels_ * slabs_;
    return rest < 0 ? slab_of<kType>(a_, panel_ + i % panels_, i / panels_)
                    : slab_of<kType>(a_, panel_ + panels_ + rest, 0);
  }

  bool is_whole(Index p) const noexcept { return (panel_ + p + 1) * kPanelRows <= a_.rows; }

  void multiply_slab(Index i, Index n) noexcept {
    const Slab<kType> now = slab(i);
    const Index p = i % panels_, s = i / panels_, first = s * a_.slab_tokens + t0_;
    const Index steps = (tokens_ + kBlockTokens - 1) / kBlockTokens * now.tiles;
    TokenScales& scales = token_scales_[s % 2];
    if (p == 0) {
      for (Index t = 0; t < tokens_; ++t) {
        scales.scale[t] = a_.meta[first + t].scale;
        scales.bias[t] = kBias * a_.meta[first + t].sum;
      }
    }
    meanwhile_.slab = slab(i + 1);
    const Slab<kType> later = slab(i + kAheadSlabs);
    meanwhile_.weights.begin(later.data, later.bytes(), steps);
    const bool is_far = tokens_ * a_.cols > kNearActivations && s + 1 < slabs_ && p < kSlabTiles;
    meanwhile_.activations.begin(columns_of(a_, s + 1, t0_).tile(p), is_far ? tokens_ * kTileCols : 0, steps);
    float* const sums = sums_ + p * tokens_ * kPanelRows;
    const bool is_output = i + panels_ >= n && is_whole(p);
    float* const to = is_output ? a_.y + t0_ * a_.y_stride + (panel_ + p) * kPanelRows : sums;
    const Index to_stride = is_output ? a_.y_stride : kPanelRows;
    for (Index t = 0; t < tokens_; t += kBlockTokens) {
      meanwhile_.is_last = t + kBlockTokens >= tokens_ && i + 1 < n;
      multiply_block(now, s, t);
      meanwhile_.token_scales = &scales;
      meanwhile_.first_token = t;
      meanwhile_.sums = sums + t * kPanelRows;
      meanwhile_.to = to + t * to_stride;
      meanwhile_.to_stride = to_stride;
      meanwhile_.not_first = s == 0 ? __mmask16{0} : __mmask16{0xffff};
    }
  }

  // Where a tile would go beyond the tokens it begins earlier, so that some of its products are there twice.
  void multiply_block(const Slab<kType>& slab, Index s, Index t) noexcept {
    const Index last = a_.tokens - kTileRows, t0 = t0_ + t, t1 = t0 + kTileRows;
    const Index begin0 = t0 < last ? t0 : last, begin1 = t1 < last ? t1 : last;
    const SlabColumns x0 = columns_of(a_, s, begin0), x1 = columns_of(a_, s, begin1);
    const std::byte* w = kType == DType::kP8 ? slab.half(0, 0) : room_;
    meanwhile_.tokens_a_step = (meanwhile_.tokens + slab.tiles - 1) / slab.tiles;
    const Index tokens = tokens_ - t < kBlockTokens ? tokens_ - t : kBlockTokens;
    if (tokens > kTileRows) {
      multiply_tiles<2>(unit_, slab.tiles, w, x0, x1, meanwhile_, dots_);
    } else {
      multiply_tiles<1>(unit_, slab.tiles, w, x0, x1, meanwhile_, dots_);
    }
    meanwhile_.scales = slab.scales();
    meanwhile_.next = 0;
    meanwhile_.tokens = tokens;
    meanwhile_.first_row = t0 - begin0;
    meanwhile_.second_row = kTileRows + t1 - begin1;
  }

  static constexpr Index kAheadSlabs = kType == DType::kP8 ? 1 : 2;  // P4's are expanded a slab earlier

  Tiles& unit_;
  const PackedLinearArgs& a_;
  const Index slabs_ = PackedLayout{kType, a_.cols}.slabs();
  float* sums_;  // [panels][tokens][32]
  Index panel_ = 0, panels_ = 0, t0_ = 0, tokens_ = 0;
  Meanwhile<kType> meanwhile_;
  TokenScales token_scales_[2];  // this slab's and the one's before
  alignas(64) std::byte room_[kPanelRows * kSlabCols];
  alignas(64) std::int32_t dots_[4 * kTileDots];
};

template <DType kType, class Tiles>
void packed_linear_tiles(const PackedLinearArgs& a) noexcept {
  if (a.tokens < kFewestTileTokens || a.cols == 0) return packed_linear_vnni<Zmm, kType>(a);
  Tiles unit;
  TileGroup<kType, Tiles> group(unit, a, a.work);
  const Index groups = (a.tokens + kTileTokens - 1) / kTileTokens, n_panels = panels_of(a.rows);
  // About as many tokens in each group: P4's bytes are expanded once for each.
  const Index most = ((a.tokens + groups - 1) / groups + kBlockTokens - 1) / kBlockTokens * kBlockTokens;
  const Index fit = simd::kTileWork / (most * kPanelRows), side = fit < kTilePanels ? fit : kTilePanels;
  for (Index t0 = 0; t0 < a.tokens; t0 += most) {
    for (Index p = 0; p < n_panels; p += side) {
      group.multiply(p, n_panels - p < side ? n_panels - p : side, t0, a.tokens - t0 < most ? a.tokens - t0 : most);
    }
  }
}

}  // namespace
}  // namespace mixtral::kernels
