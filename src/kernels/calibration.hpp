// Which of two kernels with the same results is faster from how many tokens on: measured once, at start-up.
#pragma once

#include "mixtral/simd/packed_rows.hpp"

namespace mixtral::kernels {

using PackedLinear = void (*)(const simd::PackedLinearArgs&) noexcept;

// The least of 16, 32, 64 and 128 tokens from which on `many` takes less time than `few` for products with P4 weights;
// more than any number of tokens if it never does. Some 2 ms, one thread at a time.
Index tokens_where_faster(PackedLinear few, PackedLinear many) noexcept;

}  // namespace mixtral::kernels
