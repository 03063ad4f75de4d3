// Blocks of GGML's types to float32, with the bits of the format's reference, the sign of zero included.
#pragma once

#include <cstddef>

#include "mixtral/core/types.hpp"
#include "mixtral/io/ggml_type.hpp"

namespace mixtral {

// `blocks` holds n_weights, a multiple of the type's block_weights, one block after the other, at any alignment.
// Every bit pattern is legal. A scale that is infinite or NaN gives what IEEE arithmetic makes of it: the caller looks
// for that in the weights. Types with a minimum round once, in the environment of the calling thread.
void dequantize(GgmlType type, const std::byte* blocks, Index n_weights, float* out) noexcept;

}  // namespace mixtral
