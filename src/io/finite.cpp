#include "io/finite.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "mixtral/core/error.hpp"

namespace mixtral {
namespace {

// Infinities and NaNs have all bits of the exponent. A whole run is looked at before a number of it is: that is as fast
// as memory.
template <class Bits, Bits kExponent>
Index count_in(const std::byte* data, Index n) noexcept {
  Bits count = 0;
  for (Index i = 0; i < n; ++i) {
    Bits bits;
    std::memcpy(&bits, data + i * static_cast<Index>(sizeof bits), sizeof bits);
    count = static_cast<Bits>(count + ((bits & kExponent) == kExponent));
  }
  return count;
}

Index count_in(DType dtype, const std::byte* data, Index n) noexcept {
  switch (dtype) {
    case DType::kF32: return count_in<std::uint32_t, 0x7f800000>(data, n);
    case DType::kBF16: return count_in<std::uint16_t, 0x7f80>(data, n);
    default: return count_in<std::uint16_t, 0x7c00>(data, n);  // F16
  }
}

float value_at(DType dtype, const std::byte* data, Index i) noexcept {
  const auto read = [&](auto number) {
    std::memcpy(&number, data + i * static_cast<Index>(sizeof number), sizeof number);
    return to_float(number);
  };
  switch (dtype) {
    case DType::kF32: return read(0.0f);
    case DType::kBF16: return read(bf16{});
    default: return read(f16{});
  }
}

// `found` and n more numbers, the first of which is at [row, col].
void add(NonFinite& found, DType dtype, const std::byte* data, Index n, Index row, Index col) noexcept {
  const Index count = count_in(dtype, data, n);
  if (found.count == 0 && count > 0) {
    Index i = 0;
    while (count_in(dtype, data + i * size_of(dtype), 1) == 0) ++i;
    found.row = row;
    found.col = col + i;
    found.value = value_at(dtype, data, i);
    if (std::isnan(found.value)) found.value = std::numeric_limits<float>::quiet_NaN();  // one text for all of them
  }
  found.count += count;
}

NonFinite find_in_dense(const MatrixView& w, Index begin, Index end) noexcept {
  constexpr Index kRun = 4096;  // fewer than a 16-bit count can hold
  NonFinite found;
  for (Index r = begin; r < end; ++r) {
    for (Index c = 0; c < w.cols; c += kRun) {
      add(found, w.dtype, w.row(r) + c * size_of(w.dtype), std::min(kRun, w.cols - c), r, c);
    }
  }
  return found;
}

NonFinite find_in_scales(const MatrixView& w, Index begin, Index end) noexcept {
  const PackedLayout layout = w.layout();
  const Index first = w.part == PanelPart::kSecond ? kHalfRows : 0;
  const bool halves = has_block_scales(w.dtype);
  const DType type = halves ? DType::kF16 : DType::kF32;
  // Columns of a scale.
  const Index width = !halves ? kSlabCols : w.dtype == DType::kQ4_K ? kSuperTiles * kTileCols : kBlockCols;
  NonFinite found;
  for (Index r = begin; r < end; ++r) {
    const Index panel = r / w.row_step() * w.row_step();
    for (Index s = 0; s < layout.slabs(); ++s) {
      const Index tiles = layout.slab_tiles(s), n = halves ? layout.half_rows(tiles) : 1;
      for (Index i = 0; i < n; ++i) {  // minima, if there are some, begin at the first column again
        const Index scale = (i * kPanelRows + first + r - panel) * size_of(type);
        const Index column = s * kSlabCols + i * width % (tiles * kTileCols);
        add(found, type, w.row(panel) + layout.slab_offset(s) + scale, 1, r, std::min(column, w.cols - 1));
      }
    }
  }
  return found;
}

}  // namespace

NonFinite find_non_finite(const MatrixView& w, Index begin, Index end) noexcept {
  return w.is_packed() ? find_in_scales(w, begin, end) : find_in_dense(w, begin, end);
}

void require_finite_routing(const TensorSlot& slot, const MatrixView& w, const std::string& where) {
  const bool router = slot.kind == TensorKind::kRouter;
  if (!router && !is_vector(slot.kind)) return;
  const NonFinite found = find_non_finite(w, 0, w.rows);
  require(found.count == 0, ErrorCode::kBadFormat, where, ": ", slot_name(slot), ": ",
          router ? str("expert ", found.row, ", ") : "", "element ", found.col, " is ", found.value,
          ", expected finite numbers");
}

void require_finite_routing(const Weights& weights, const ModelConfig& config, const std::string& where) {
  for_each_tensor(
      config, [&](const TensorSlot& slot, const Shape<2>&) { require_finite_routing(slot, weights.at(slot), where); });
}

}  // namespace mixtral
