// Weights in float32 to blocks of GGML's types, with the bytes that the format's reference makes of them.
#pragma once

#include <cstddef>

#include "mixtral/core/types.hpp"
#include "mixtral/io/ggml_type.hpp"

namespace mixtral {

// F32, F16, Q8_0 and Q4_0: the types that can be written.
bool can_quantize(GgmlType type) noexcept;

// Makes blocks of n_weights, a multiple of the type's block_weights, at any alignment; `type` is one of those above.
// Computes in the environment of the calling thread. False: a weight is infinite, NaN or too large for the type's
// 16-bit floats; the blocks mean nothing then.
bool quantize(GgmlType type, const float* weights, Index n_weights, std::byte* blocks) noexcept;

}  // namespace mixtral
