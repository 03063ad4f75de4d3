// The integer types that every layer shares.
#pragma once

#include <cstdint>

namespace mixtral {

// Sizes, counts, strides and positions are signed: differences stay meaningful.
using Index = std::int64_t;

using TokenId = std::int32_t;
using ExpertId = std::int32_t;
using SlotId = std::int32_t;  // one sequence of a KV cache

}  // namespace mixtral
