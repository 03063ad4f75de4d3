// Products with packed weights (core/packed_layout.hpp) in whole numbers, the plain version; and what all versions
// share: how activations become bytes, and the order of the few float32 steps.
//
// P4 and P8, of each slab s in rising order:
//   y[t, r] = fma(float(dot[t, r, s]), scale_w[r, s] * scale_x[t, s], y[t, r])
//   dot     = sum over the slab's 512 columns of (integer weight) * (integer activation), exact in int32
//
// Types with a scale for each block b of 32 columns, weight = scale[r, b] * q + offset[r, b], of each slab:
//   z       = 0; then for its blocks, in rising order, z = fma(offset[r, b], float(sum of b's activations), z)
//   z       = fma(float(dot[t, r, b]), scale[r, b], z), in rising order again
//   y[t, r] = fma(z, scale_x[t, s], y[t, r])
//
// A dot product of whole numbers has one value, whatever the order of its sum: every instruction set, blocking, batch
// and number of threads gives the same bits, at no cost. |dot| <= 512 * 127 * 127 < 2^23 is exact as a float32, too.
#pragma once

#include <cstring>

#include "mixtral/core/packed_layout.hpp"
#include "mixtral/simd/lanes.hpp"

namespace mixtral::simd {

// What belongs to 512 activations of one token.
struct SlabMeta {
  float scale;                           // activation = scale * q
  std::int32_t sum;                      // of all q
  std::int16_t block_sums[kSlabBlocks];  // of each 32 q
};

// What is multiplied together lies together: activations are [slabs][8 tiles][slab_tokens][64 columns], so that a
// tile of a matrix unit is 1024 bytes in a row (rows 512 bytes apart take a seventh longer); meta is
// [slabs][slab_tokens].
struct PackedLinearArgs {
  const std::byte* w;  // panels, one after the other
  Index rows;          // outputs: 32 a panel, fewer in the last
  Index cols;
  const std::int8_t* q;
  const SlabMeta* meta;
  Index slab_tokens;  // tokens in memory, of which `tokens` from q on are used
  Index tokens;
  float* y;  // [tokens, rows]
  Index y_stride;
  float* work = nullptr;  // [kTileWork] of this worker, 64-byte aligned: for a matrix unit's products alone
};
inline constexpr Index kTileWork = Index{1} << 16;  // 256 KiB: in the L2 cache, and too much for a stack

// 512 or fewer activations of one token to bytes: q = round(x * 127 / max|x|), ties to even, zeros after n. An
// infinity or a NaN makes the scale NaN, so that it shows in every output; magnitudes below 1e-30 count as zero.
template <class Arch>
void quantize_slab(const float* x, Index n, std::int8_t* q, SlabMeta* meta) noexcept {
  using V = Lanes<Arch>;
  alignas(64) float values[kSlabCols];
  std::memcpy(values, x, static_cast<std::size_t>(n) * sizeof(float));
  if (n < kSlabCols) std::memset(values + n, 0, static_cast<std::size_t>(kSlabCols - n) * sizeof(float));
  V largest = V::zero(), bad = V::zero();
  for (Index k = 0; k < kSlabCols; k += kLanes) {
    const V v = V::load(values + k);
    largest = max(largest, max(v, V::zero() - v));
    bad = fma(v, V::zero(), bad);  // NaN once v is not finite
  }
  const float most = largest.largest(), nan_or_zero = bad.sum();
  const bool usable = nan_or_zero == 0 && most >= 1e-30f;
  const V inverse = V::broadcast(usable ? 127.0f / most : 0.0f);
  const V magic = V::broadcast(kRoundingMagic), low = V::broadcast(kRoundingMagic - 127),
          high = V::broadcast(kRoundingMagic + 127);
  std::int32_t total = 0;
  for (Index b = 0; b < kSlabBlocks; ++b) {
    alignas(64) std::int32_t bits[kBlockCols];
    for (Index k = 0; k < kBlockCols; k += kLanes) {
      float rounded[kLanes];
      const V v = usable ? V::load(values + b * kBlockCols + k) : V::zero();
      max(low, min(high, fma(v, inverse, magic))).store(rounded);
      std::memcpy(bits + k, rounded, sizeof rounded);
    }
    std::int32_t sum = 0;
    for (Index k = 0; k < kBlockCols; ++k) {
      const std::int32_t value = bits[k] - 0x4b400000;
      q[b * kBlockCols + k] = static_cast<std::int8_t>(value);
      sum += value;
    }
    meta->block_sums[b] = static_cast<std::int16_t>(sum);
    total += sum;
  }
  meta->scale = usable ? most / 127.0f : nan_or_zero;
  meta->sum = total;
}

namespace detail {

// The integer weights of one slab, [32 rows][512 columns]; columns beyond its tiles are left alone.
template <class Arch, DType kType>
void unpack_slab(const std::byte* slab, Index tiles, std::int16_t* out) noexcept {
  constexpr PackedLayout kLayout{kType};
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(slab) + kLayout.scale_bytes(tiles);
  const std::uint8_t* scales =
      reinterpret_cast<const std::uint8_t*>(slab) + PackedLayout::kRowScaleBytes;  // P4's m and z
  for (Index tile = 0; tile < tiles; ++tile) {
    for (Index r = 0; r < kPanelRows; ++r) {
      const std::uint8_t* half = bytes + (2 * tile + r / kHalfRows) * kLayout.tile_bytes() / 2 + r % kHalfRows * 4;
      for (Index k = 0; k < kTileCols; ++k) {
        std::int16_t& value = out[r * kSlabCols + tile * kTileCols + k];
        if constexpr (kLayout.bits() == 8) {
          value = static_cast<std::int16_t>(half[k / 4 * 64 + k % 4] - 128);
          continue;
        }
        const Index block = k / kBlockCols, column = k % kBlockCols;
        const int q = half[column / 4 * 64 + column % 4] >> (4 * block) & 15;
        if constexpr (kType == DType::kP4) {
          const int mz = scales[(2 * tile + block) * kPanelRows + r];
          value = static_cast<std::int16_t>((mz & 15) * (q - (mz >> 4)));
        } else {
          value = static_cast<std::int16_t>(kType == DType::kQ4_0 ? q - 8 : q);
        }
      }
    }
  }
}

// The float32 scale of row r of P4 and P8.
template <class Arch>
float slab_scale(const std::byte* slab, Index r) noexcept {
  float scale;
  std::memcpy(&scale, slab + r * static_cast<Index>(sizeof scale), sizeof scale);
  return scale;
}

// Whether weights of a block have something added: weight = scale * q + offset.
template <DType kType>
inline constexpr bool kHasOffsets = kType == DType::kQ4_1 || kType == DType::kQ4_K;

struct BlockScales {
  float scale[kSlabBlocks][kPanelRows], offset[kSlabBlocks][kPanelRows];
};

// Of a slab of a type with block scales; what is beyond its tiles is left alone.
template <class Arch, DType kType>
void block_scales(const std::byte* slab, Index tiles, BlockScales* out) noexcept {
  using V = Lanes<Arch>;
  const Index blocks = tiles * kTileBlocks, supers = PackedLayout::supers(tiles);
  const std::byte* const bytes = slab + 2 * supers * PackedLayout::kHalfScaleBytes;  // Q4_K's s, then m
  const auto halves = [&](Index i, Index r) {
    return V::load(reinterpret_cast<const f16*>(slab + i * PackedLayout::kHalfScaleBytes) + r);
  };
  const auto numbers = [&](Index i, Index r) {
    float x[kLanes];
    for (Index l = 0; l < kLanes; ++l) x[l] = static_cast<float>(bytes[i * kPanelRows + r + l]);
    return V::load(x);
  };
  for (Index b = 0; b < blocks; ++b) {
    for (Index r = 0; r < kPanelRows; r += kLanes) {
      V scale = V::zero(), offset = V::zero();
      if constexpr (kType == DType::kQ4_K) {
        const Index super = b / (kSuperTiles * kTileBlocks);
        scale = halves(super, r) * numbers(b, r);
        offset = V::broadcast(-1) * halves(supers + super, r) * numbers(blocks + b, r);
      } else {
        scale = halves(b, r);
        if constexpr (kType == DType::kQ4_1) offset = halves(blocks + b, r);
      }
      scale.store(out->scale[b] + r);
      offset.store(out->offset[b] + r);
    }
  }
}

// Adds one slab's product of a row, `numbers` [512], and a token.
template <class Arch, DType kType>
float add_slab(const std::byte* slab, const BlockScales& scales, Index tiles, Index r, const std::int16_t* numbers,
               const std::int8_t* q, Index tile_step, const SlabMeta& meta, float y) noexcept {
  const auto dot = [&](Index begin, Index end) {
    std::int32_t sum = 0;
    for (Index k = begin; k < end; ++k) sum += numbers[k] * q[k / kTileCols * tile_step + k % kTileCols];
    return static_cast<float>(sum);
  };
  if constexpr (!has_block_scales(kType)) {
    return std::fma(dot(0, tiles * kTileCols), slab_scale<Arch>(slab, r) * meta.scale, y);
  }
  const Index blocks = tiles * kTileBlocks;
  float z = 0;
  for (Index b = 0; kHasOffsets<kType> && b < blocks; ++b) {
    z = std::fma(scales.offset[b][r], static_cast<float>(meta.block_sums[b]), z);
  }
  for (Index b = 0; b < blocks; ++b) z = std::fma(dot(b * kBlockCols, (b + 1) * kBlockCols), scales.scale[b][r], z);
  return std::fma(z, meta.scale, y);
}

}  // namespace detail

// The plain version.
template <class Arch, DType kType>
void packed_linear(const PackedLinearArgs& a) noexcept {
  const PackedLayout layout{kType, a.cols};
  std::int16_t w[kPanelRows * kSlabCols];
  detail::BlockScales scales;
  for (Index r0 = 0; r0 < a.rows; r0 += kPanelRows) {
    const std::byte* panel = a.w + r0 / kPanelRows * layout.panel_bytes();
    const Index rows = a.rows - r0 < kPanelRows ? a.rows - r0 : kPanelRows;
    for (Index t = 0; t < a.tokens; ++t) {
      for (Index r = 0; r < rows; ++r) a.y[t * a.y_stride + r0 + r] = 0;
    }
    for (Index s = 0; s < layout.slabs(); ++s) {
      const Index tiles = layout.slab_tiles(s);
      const std::byte* slab = panel + layout.slab_offset(s);
      detail::unpack_slab<Arch, kType>(slab, tiles, w);
      if constexpr (has_block_scales(kType)) detail::block_scales<Arch, kType>(slab, tiles, &scales);
      for (Index t = 0; t < a.tokens; ++t) {
        const std::int8_t* q = a.q + s * a.slab_tokens * kSlabCols + t * kTileCols;
        for (Index r = 0; r < rows; ++r) {
          float& y = a.y[t * a.y_stride + r0 + r];
          y = detail::add_slab<Arch, kType>(slab, scales, tiles, r, w + r * kSlabCols, q, a.slab_tokens * kTileCols,
                                            a.meta[s * a.slab_tokens + t], y);
        }
      }
    }
  }
}

}  // namespace mixtral::simd
