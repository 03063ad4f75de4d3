#include "io/ggml_panels.hpp"

#include <algorithm>
#include <cstring>

#include "io/ggml_block_parts.hpp"

namespace mixtral {
namespace {

using ggml::Bytes;

constexpr std::uint32_t kLow = 0x0f0f0f0fu, kHigh = 0xf0f0f0f0u, kBias = 0x80808080u;

std::uint32_t read_four(Bytes bytes, Index i) noexcept {
  std::uint32_t four;
  std::memcpy(&four, bytes + 4 * i, sizeof four);
  return four;
}

// One row of a slab: where its scales and the codes of its tiles go.
struct SlabRow {
  std::byte* slab;
  PackedLayout layout;
  Index tiles, row;

  // Number i of the slab's float16 rows. False if it is not finite.
  bool put_half(Index i, Bytes from) const noexcept {
    std::memcpy(slab + i * PackedLayout::kHalfScaleBytes + row * 2, from, 2);
    return (from[1] & 0x7c) != 0x7c;
  }
  // Number i of the rows of bytes behind them.
  void put_byte(Index i, std::uint8_t byte) const noexcept {
    const Index begin = layout.half_rows(tiles) * PackedLayout::kHalfScaleBytes;
    slab[begin + i * kPanelRows + row] = std::byte{byte};
  }
  // Four codes, or four pairs of them: quad i of a tile.
  void put_quad(Index tile, Index i, std::uint32_t four) const noexcept {
    const Index half = (2 * tile + row / kHalfRows) * layout.tile_bytes() / 2;
    std::memcpy(slab + layout.scale_bytes(tiles) + half + i * 64 + row % kHalfRows * 4, &four, sizeof four);
  }
};

// Types with blocks of 32: float16 numbers, then the codes. Of a tile's two blocks the second may be missing.
template <GgmlType kType, Index kHalves>
bool put_blocks(const SlabRow& out, Bytes blocks, Index n_blocks) noexcept {
  constexpr Index kBytes = info_of(kType).block_bytes;
  static constexpr std::uint8_t kZeros[kBytes] = {};
  bool finite = true;
  for (Index tile = 0; tile < out.tiles; ++tile) {
    const Index b = tile * kTileBlocks;
    const Bytes first = blocks + b * kBytes, second = b + 1 < n_blocks ? first + kBytes : kZeros;
    for (Index i = 0; i < kHalves; ++i) {
      const Index begin = i * out.tiles * kTileBlocks + b;
      const bool both = out.put_half(begin, first + 2 * i) & out.put_half(begin + 1, second + 2 * i);
      finite = finite && both;
    }
    const Bytes x = first + 2 * kHalves, y = second + 2 * kHalves;
    if constexpr (kType == GgmlType::kQ8_0) {
      for (Index i = 0; i < 8; ++i) {
        out.put_quad(tile, i, read_four(x, i) ^ kBias);
        out.put_quad(tile, 8 + i, read_four(y, i) ^ kBias);
      }
    } else {  // a block's low nibbles are its first 16 codes
      for (Index i = 0; i < 4; ++i) {
        const std::uint32_t a = read_four(x, i), c = read_four(y, i);
        out.put_quad(tile, i, (a & kLow) | (c & kLow) << 4);
        out.put_quad(tile, 4 + i, (a >> 4 & kLow) | (c & kHigh));
      }
    }
  }
  return finite;
}

// Q4_K: a tile's low nibbles are its first 32 codes already.
bool put_supers(const SlabRow& out, Bytes blocks, Index /*n_blocks*/) noexcept {
  constexpr Index kBytes = info_of(GgmlType::kQ4_K).block_bytes;
  const Index supers = PackedLayout::supers(out.tiles), n_blocks = out.tiles * kTileBlocks;
  bool finite = true;
  for (Index super = 0; super < supers; ++super, blocks += kBytes) {
    const bool both = out.put_half(super, blocks) & out.put_half(supers + super, blocks + 2);
    finite = finite && both;
    for (Index i = 0; i < kSuperTiles * kTileBlocks; ++i) {
      const auto [s, m] = ggml::scale_and_min(blocks + 4, i);
      const Index b = super * kSuperTiles * kTileBlocks + i;
      out.put_byte(b, s);
      out.put_byte(n_blocks + b, m);
    }
    for (Index tile = 0; tile < kSuperTiles; ++tile) {
      const Bytes codes = blocks + 16 + 32 * tile;
      for (Index i = 0; i < 8; ++i) out.put_quad(super * kSuperTiles + tile, i, read_four(codes, i));
    }
  }
  return finite;
}

using PutRow = bool (*)(const SlabRow& out, Bytes blocks, Index n_blocks) noexcept;

struct Exact {
  GgmlType type;
  DType dtype;
  PutRow put;
};
constexpr Exact kExact[] = {{GgmlType::kQ8_0, DType::kQ8_0, put_blocks<GgmlType::kQ8_0, 1>},
                            {GgmlType::kQ4_0, DType::kQ4_0, put_blocks<GgmlType::kQ4_0, 1>},
                            {GgmlType::kQ4_1, DType::kQ4_1, put_blocks<GgmlType::kQ4_1, 2>},
                            {GgmlType::kQ4_K, DType::kQ4_K, put_supers}};

const Exact* find_exact(GgmlType type) noexcept {
  const auto* const found = std::ranges::find(kExact, type, &Exact::type);
  return found == std::end(kExact) ? nullptr : found;
}

}  // namespace

std::optional<DType> exact_type(GgmlType type) noexcept {
  const Exact* exact = find_exact(type);
  return exact == nullptr ? std::nullopt : std::optional(exact->dtype);
}

bool fill_panel(GgmlType type, const std::byte* const (&rows)[kPanelRows], Index cols, std::byte* out) noexcept {
  const Exact& exact = *find_exact(type);
  const PackedLayout layout{exact.dtype, cols};
  const GgmlTypeInfo& info = info_of(type);
  std::fill_n(out, layout.panel_bytes(), std::byte{0});
  bool finite = true;
  for (Index s = 0; s < layout.slabs(); ++s) {
    const Index n = std::min(kSlabCols, cols - s * kSlabCols), skip = s * kSlabCols / info.block_weights;
    for (Index r = 0; r < kPanelRows; ++r) {
      if (rows[r] == nullptr) continue;
      const SlabRow row{out + layout.slab_offset(s), layout, layout.slab_tiles(s), r};
      const auto* const blocks = reinterpret_cast<Bytes>(rows[r]) + skip * info.block_bytes;
      finite = exact.put(row, blocks, n / info.block_weights) && finite;
    }
  }
  return finite;
}

}  // namespace mixtral
