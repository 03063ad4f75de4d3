// Activations as bf16, for products of bf16 pairs.
#pragma once

#include <algorithm>
#include <cstring>

#include "mixtral/core/tensor.hpp"
#include "mixtral/ops/context.hpp"

namespace mixtral::ops {

// Rounded rows as the table's linear_pairs wants them (simd/linear_pairs.hpp). Looks at scratch memory; x == nullptr:
// none.
struct RoundedRows {
  bf16* x = nullptr;
  Index token_step = 0, pair_step = 0;

  bf16* at(Index t, Index k) const noexcept { return x + t * token_step + k / 2 * pair_step + k % 2; }
  RoundedRows rows(Index begin) const noexcept {
    return x == nullptr ? *this : RoundedRows{x + begin * token_step, token_step, pair_step};
  }
};

inline constexpr Index kTileTokens = 16;  // of PairOrder::kByPair: tokens of one line

// Room for [n, cols], uninitialised but for the zeros behind the last column.
inline RoundedRows take_rounded(const OpContext& ctx, Index n, Index cols) {
  constexpr Index kOperand = 32;  // columns
  const Index padded = (cols + kOperand - 1) / kOperand * kOperand;
  RoundedRows out;
  if (ctx.table.pair_order == simd::PairOrder::kByToken) {
    out = {ctx.scratch.take<bf16>(n * padded), padded, 2};
  } else {
    // Pairs an odd number of lines of 16 tokens apart, so that they share no set of a cache. A tile reads 16 tokens,
    // also from the last one on.
    const Index step = (((n + kTileTokens - 1) / kTileTokens) | 1) * kTileTokens * 2;
    out = {ctx.scratch.take<bf16>(padded / 2 * step + 2 * kTileTokens), 2, step};
  }
  for (Index t = 0; t < n; ++t) {
    for (Index k = cols; k < padded; ++k) *out.at(t, k) = bf16{};
  }
  return out;
}

// Rounds columns [begin, begin + count) of row t; begin is even.  x [count]
inline void round_columns(const KernelTable& table, const float* x, Index begin, Index count, Index t,
                          const RoundedRows& out) noexcept {
  if (out.pair_step == 2) return table.round_bf16(x, count, out.at(t, begin));
  constexpr Index kSome = 128;
  for (Index k = 0; k < count; k += kSome) {
    bf16 some[kSome];
    const Index n = std::min(kSome, count - k);
    table.round_bf16(x + k, n, some);
    for (Index i = 0; i < n; i += 2) {
      std::memcpy(out.at(t, begin + k + i), some + i,
                  static_cast<std::size_t>(std::min<Index>(2, n - i)) * sizeof(bf16));
    }
  }
}

// Rounds n rows: row_of(t) [cols]. Tokens that share lines are one worker's.
template <class RowOf>
RoundedRows round_rows(const OpContext& ctx, Index n, Index cols, RowOf&& row_of) {
  const RoundedRows out = take_rounded(ctx, n, cols);
  ctx.executor.parallel_for((n + kTileTokens - 1) / kTileTokens, [&](Index i, int) {
    for (Index t = i * kTileTokens; t < std::min(n, (i + 1) * kTileTokens); ++t) {
      round_columns(ctx.table, row_of(t), 0, cols, t, out);
    }
  });
  return out;
}

}  // namespace mixtral::ops
