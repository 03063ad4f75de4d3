#include "kernels/calibration.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <new>

namespace mixtral::kernels {

Index tokens_where_faster(PackedLinear few, PackedLinear many) noexcept {
  using Clock = std::chrono::steady_clock;
  constexpr Index kNever = std::numeric_limits<Index>::max(), kCols = 4096, kSlabs = kCols / kSlabCols, kMost = 128;
  constexpr PackedLayout kLayout{4, kCols};
  constexpr std::align_val_t kLine{64};
  const auto take = [&](Index bytes) {
    auto* data = static_cast<std::byte*>(::operator new(static_cast<std::size_t>(bytes), kLine, std::nothrow));
    // Of floats, too: a small number, neither zero nor denormal.
    if (data != nullptr) std::memset(data, 0x11, static_cast<std::size_t>(bytes));
    return data;
  };
  std::byte* const w = take(kLayout.panel_bytes());
  std::byte* const q = take(kSlabs * kMost * kSlabCols);
  std::byte* const meta = take(kSlabs * kMost * static_cast<Index>(sizeof(simd::SlabMeta)));
  std::byte* const y = take(kMost * kPanelRows * static_cast<Index>(sizeof(float)));
  Index from = kNever;
  if (w != nullptr && q != nullptr && meta != nullptr && y != nullptr) {
    for (const Index tokens : {kMost, Index{64}, Index{32}, Index{16}}) {
      const simd::PackedLinearArgs args{.w = w,
                                        .rows = kPanelRows,
                                        .cols = kCols,
                                        .q = reinterpret_cast<const std::int8_t*>(q),
                                        .meta = reinterpret_cast<const simd::SlabMeta*>(meta),
                                        .slab_tokens = kMost,
                                        .tokens = tokens,
                                        .y = reinterpret_cast<float*>(y),
                                        .y_stride = kPanelRows};
      Clock::duration best[2] = {Clock::duration::max(), Clock::duration::max()};
      for (int round = 0; round < 4; ++round) {  // in turns, the first one to warm up
        for (int i = 0; i < 2; ++i) {
          const Clock::time_point begin = Clock::now();
          (i == 0 ? few : many)(args);
          if (round > 0) best[i] = std::min(best[i], Clock::now() - begin);
        }
      }
      if (best[1] >= best[0]) break;
      from = tokens;
    }
  }
  for (std::byte* data : {w, q, meta, y}) ::operator delete(data, kLine);
  return from;
}

}  // namespace mixtral::kernels
