// The integer types that every layer shares.
#pragma once

#include <cstdint>

namespace mixtral {

// Sizes, counts, strides and positions are signed: differences stay meaningful.
using Index = std::int64_t;

using TokenId = std::int32_t;
using ExpertId = std::int32_t;
using ExpertVersion = std::int32_t;  // of one expert's weights
using SlotId = std::int32_t;         // one sequence of a KV cache

// Whichever version is the present one; others have numbers from 1.
inline constexpr ExpertVersion kCurrentVersion = 0;

}  // namespace mixtral
