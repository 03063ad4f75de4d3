#include "kernels/calibration.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>

namespace mixtral::kernels {

Index tokens_where_faster(PackedLinear few, PackedLinear many) noexcept {
  using Clock = std::chrono::steady_clock;
  constexpr Index kNever = std::numeric_limits<Index>::max(), kCols = 4096, kSlabs = kCols / kSlabCols, kMost = 128;
  // Not allocated: a process that once has too little memory would do without the matrix unit to its end.
  alignas(64) static std::byte w[PackedLayout{DType::kP4, kCols}.panel_bytes()];
  alignas(64) static std::int8_t q[kSlabs * kMost * kSlabCols];
  alignas(64) static simd::SlabMeta meta[kSlabs * kMost];
  alignas(64) static float y[kMost * kPanelRows];
  alignas(64) static float work[simd::kTileWork];
  // Scales, too, are neither zero nor denormal, nor is what they give.
  std::memset(w, 0x3c, sizeof w);
  std::memset(q, 0x3c, sizeof q);
  for (simd::SlabMeta& m : meta) m = {.scale = 0.01f, .sum = 0, .block_sums = {}};
  Index from = kNever;
  for (const Index tokens : {kMost, Index{64}, Index{32}, Index{16}}) {
    const simd::PackedLinearArgs args{.w = w,
                                      .rows = kPanelRows,
                                      .cols = kCols,
                                      .q = q,
                                      .meta = meta,
                                      .slab_tokens = kMost,
                                      .tokens = tokens,
                                      .y = y,
                                      .y_stride = kPanelRows,
                                      .work = work};
    // In turns, the best of each: a matrix unit may take four times as long for some milliseconds.
    Clock::duration best[2] = {Clock::duration::max(), Clock::duration::max()};
    for (int round = 0; round < 8; ++round) {
      for (int i = 0; i < 2; ++i) {
        const Clock::time_point begin = Clock::now();
        (i == 0 ? few : many)(args);
        best[i] = std::min(best[i], Clock::now() - begin);
      }
    }
    if (best[1] >= best[0]) break;
    from = tokens;
  }
  return from;
}

}  // namespace mixtral::kernels
