// Token ids to rows of the embedding matrix.
#pragma once

#include <span>

#include "mixtral/core/matrix_view.hpp"
#include "mixtral/ops/rows.hpp"

namespace mixtral::ops {

// y[t, :] = table[ids[t], :], exactly.  table [vocab_size, dim] of any weight type, y [n, dim].
// Throws Error(kInvalidArgument) on shapes that do not fit or an id outside the table; y is then unspecified.
inline void embedding(const OpContext& ctx, const MatrixView& table, std::span<const TokenId> ids,
                      TensorView<float, 2> y) {
  require(y.dim(0) == static_cast<Index>(ids.size()) && y.dim(1) == table.cols, "embedding: y is ", y.shape(),
          ", expected [", ids.size(), ", ", table.cols, "]");
  require_weights("embedding", table);
  for (Index t = 0; t < y.dim(0); ++t) {
    const TokenId id = ids[static_cast<std::size_t>(t)];
    require(id >= 0 && id < table.rows, "embedding: token ", id, " at index ", t, " is outside the vocabulary of ",
            table.rows);
    ctx.table.widen[table.dtype](table.row(id), table.cols, y.row(t));
  }
}

// The same for known types; T float, bf16, f16 or double.
template <class W, class T>
void embedding(const OpContext& ctx, TensorView<const W, 2> table, std::span<const TokenId> ids, TensorView<T, 2> y) {
  if constexpr (std::is_same_v<T, float> && kHasKernels<W>) {
    embedding(ctx, MatrixView(table), ids, y);
  } else {
    require(y.dim(0) == static_cast<Index>(ids.size()) && y.dim(1) == table.dim(1), "embedding: y is ", y.shape(),
            ", expected [", ids.size(), ", ", table.dim(1), "]");
    for (const TokenId id : ids) {
      require(id >= 0 && id < table.dim(0), "embedding: token ", id, " is outside the vocabulary of ", table.dim(0));
    }
    reference::embedding(table, ids, y);
  }
}

}  // namespace mixtral::ops
