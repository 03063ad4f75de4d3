// Packing weights into P4 or P8, and looking at what is packed, in these types and the others.
#pragma once

#include <atomic>

#include "mixtral/core/matrix_view.hpp"
#include "mixtral/ops/rows.hpp"

namespace mixtral::ops {

namespace detail {

// One panel: rows [begin[i], begin[i] + 16) of source[i] are its halves.
inline bool pack_panel(const KernelTable& table, const MatrixView* const (&source)[2], const Index (&begin)[2],
                       DType dtype, const float* importance, float* wide, std::byte* out) noexcept {
  const Index cols = source[0]->cols;
  const PackedLayout layout{dtype, cols};
  std::fill_n(wide, kPanelRows * cols, 0.0f);
  for (Index half = 0; half < 2; ++half) {
    const MatrixView& w = *source[half];
    for (Index r = 0; r < kHalfRows && begin[half] + r < w.rows; ++r) {
      table.widen[w.dtype](w.row(begin[half] + r), cols, wide + (half * kHalfRows + r) * cols);
    }
  }
  bool finite = true;
  for (Index s = 0; s < layout.slabs(); ++s) {
    const Index k = s * kSlabCols;
    finite = table.pack_slab[dtype]({.w = wide + k,
                                     .w_stride = cols,
                                     .cols = std::min(kSlabCols, cols - k),
                                     .importance = importance == nullptr ? nullptr : importance + k,
                                     .out = out + layout.slab_offset(s)}) &&
             finite;
  }
  return finite;
}

// `panel_of(p)` gives source and begin of panel p.
template <class PanelOf>
void pack_panels(const OpContext& ctx, Index n_panels, DType dtype, Index cols, std::span<const float> importance,
                 std::byte* out, PanelOf&& panel_of) {
  require(ctx.table.pack_slab.has(dtype), "pack: to ", name_of(dtype), ", expected P4 or P8");
  require(importance.empty() || static_cast<Index>(importance.size()) == cols, "pack: ", importance.size(),
          " weights of importance for ", cols, " columns");
  const ScratchScope scope(ctx.scratch);
  const auto wide = ctx.scratch.matrix<float>(ctx.executor.n_workers(), kPanelRows * cols);
  const Index panel_bytes = PackedLayout{dtype, cols}.panel_bytes();
  std::atomic<bool> finite{true};
  ctx.executor.parallel_for(n_panels, [&](Index p, int worker) {
    const MatrixView* source[2];
    Index begin[2];
    panel_of(p, source, begin);
    if (!pack_panel(ctx.table, {source[0], source[1]}, {begin[0], begin[1]}, dtype,
                    importance.empty() ? nullptr : importance.data(), wide.row(worker), out + p * panel_bytes)) {
      finite = false;
    }
  });
  require(finite, ErrorCode::kBadFormat, "pack: a weight is infinite or no number");
}

// f(a constant) of a packed type.
template <class F>
void with_packed_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kP4: return f(std::integral_constant<DType, DType::kP4>{});
    case DType::kP8: return f(std::integral_constant<DType, DType::kP8>{});
    case DType::kQ8_0: return f(std::integral_constant<DType, DType::kQ8_0>{});
    case DType::kQ4_0: return f(std::integral_constant<DType, DType::kQ4_0>{});
    case DType::kQ4_1: return f(std::integral_constant<DType, DType::kQ4_1>{});
    case DType::kQ4_K: return f(std::integral_constant<DType, DType::kQ4_K>{});
    default: return;
  }
}

}  // namespace detail

// Bytes of [rows, cols] packed, of w1 and w3 as one pair, each [rows, cols]; any packed type.
inline Index packed_bytes(DType dtype, Index rows, Index cols) noexcept {
  return panels_of(rows) * PackedLayout{dtype, cols}.panel_bytes();
}
inline Index packed_pair_bytes(DType dtype, Index rows, Index cols) noexcept {
  return pair_panels_of(rows) * PackedLayout{dtype, cols}.panel_bytes();
}

// Packs dense weights into `out`, packed_bytes() of it, 64-byte aligned for speed. `importance` [cols] or empty: how
// much the squared error of each input channel counts, not negative. All workers take part; the bytes depend on the
// weights alone. Throws Error(kInvalidArgument) on shapes and types, Error(kBadFormat) on a weight that is not finite;
// `out` is then unspecified.
inline MatrixView pack(const OpContext& ctx, const MatrixView& w, DType dtype, std::span<const float> importance,
                       std::byte* out) {
  require_weights("pack", w);
  detail::pack_panels(ctx, panels_of(w.rows), dtype, w.cols, importance, out,
                      [&](Index p, const MatrixView*(&source)[2], Index(&begin)[2]) {
                        for (Index half = 0; half < 2; ++half) {
                          source[half] = &w;
                          begin[half] = p * kPanelRows + half * kHalfRows;
                        }
                      });
  return MatrixView::packed(dtype, w.rows, w.cols, out);
}

// Two matrices of one shape, interleaved: an expert's w1 and w3. `out` has packed_pair_bytes().
struct PackedPair {
  MatrixView first, second;
};
inline PackedPair pack_pair(const OpContext& ctx, const MatrixView& first, const MatrixView& second, DType dtype,
                            std::span<const float> importance, std::byte* out) {
  require_weights("pack", first);
  require_weights("pack", second);
  require(first.rows == second.rows && first.cols == second.cols, "pack: a pair of [", first.rows, ", ", first.cols,
          "] and [", second.rows, ", ", second.cols, "]");
  detail::pack_panels(ctx, pair_panels_of(first.rows), dtype, first.cols, importance, out,
                      [&](Index p, const MatrixView*(&source)[2], Index(&begin)[2]) {
                        source[0] = &first;
                        source[1] = &second;
                        begin[0] = begin[1] = p * kHalfRows;
                      });
  return {MatrixView::packed(dtype, first.rows, first.cols, out, PanelPart::kFirst),
          MatrixView::packed(dtype, first.rows, first.cols, out, PanelPart::kSecond)};
}

// Rows of a packed matrix as float32, exactly what its products use: out [w.rows, w.cols].
// Throws Error(kInvalidArgument) if w is not packed or shapes differ.
inline void unpack(const MatrixView& w, TensorView<float, 2> out) {
  require(w.is_packed(), "unpack: ", name_of(w.dtype), " weights");
  require(out.dim(0) == w.rows && out.dim(1) == w.cols, "unpack: w is [", w.rows, ", ", w.cols, "], out is ",
          out.shape());
  const FloatScope floats;
  const PackedLayout layout = w.layout();
  const Index first = w.part == PanelPart::kSecond ? kHalfRows : 0;
  std::int16_t numbers[kPanelRows * kSlabCols];
  simd::detail::BlockScales scales;
  for (Index r0 = 0; r0 < w.rows; r0 += w.row_step()) {
    for (Index s = 0; s < layout.slabs(); ++s) {
      const std::byte* slab = w.row(r0) + layout.slab_offset(s);
      const Index tiles = layout.slab_tiles(s), k0 = s * kSlabCols, cols = std::min(kSlabCols, w.cols - k0);
      detail::with_packed_type(w.dtype, [&](auto type) {
        simd::detail::unpack_slab<simd::Scalar, type>(slab, tiles, numbers);
        if constexpr (has_block_scales(type)) simd::detail::block_scales<simd::Scalar, type>(slab, tiles, &scales);
        for (Index r = 0; r < w.row_step() && r0 + r < w.rows; ++r) {
          for (Index k = 0; k < cols; ++k) {
            const float number = numbers[(first + r) * kSlabCols + k];
            float& x = out.row(r0 + r)[k0 + k];
            if constexpr (has_block_scales(type)) {
              x = scales.scale[k / kBlockCols][first + r] * number;
              if constexpr (simd::detail::kHasOffsets<type>) x += scales.offset[k / kBlockCols][first + r];
            } else {
              x = simd::detail::slab_scale<simd::Scalar>(slab, first + r) * number;
            }
          }
        }
      });
    }
  }
}

}  // namespace mixtral::ops
