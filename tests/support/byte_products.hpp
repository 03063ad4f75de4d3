// What a product with packed weights should be: its numbers, in double.
#pragma once

#include <algorithm>
#include <cmath>

#include "mixtral/core/tensor.hpp"
#include "mixtral/ops/kernel_table.hpp"

namespace mixtral::test {

struct Product {
  double sum = 0;
  double size = 0;  // of its parts
};

// Weights by activations as the kernels see them, rounded to bytes.  w, x [cols]
inline Product product_of_bytes(const KernelTable& table, const float* w, const float* x, Index cols) {
  Product out;
  for (Index k0 = 0; k0 < cols; k0 += kSlabCols) {
    std::int8_t q[kSlabCols];
    simd::SlabMeta meta;
    const Index n = std::min(kSlabCols, cols - k0);
    table.quantize_slab(x + k0, n, q, &meta);
    for (Index k = 0; k < n; ++k) {
      const double part = static_cast<double>(w[k0 + k]) * meta.scale * q[k];
      out.sum += part;
      out.size += std::abs(part);
    }
  }
  return out;
}

}  // namespace mixtral::test
