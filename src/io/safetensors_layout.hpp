// What the reader and the writer of safetensors share.
#pragma once

#include <optional>
#include <span>

#include "mixtral/core/dtype.hpp"
#include "mixtral/core/types.hpp"

namespace mixtral {

inline constexpr Index kMaxSafetensorsHeader = 100'000'000;  // bytes; the format's own limit

// Bytes of a dense tensor; nothing if a dimension is negative or the product overflows.
std::optional<Index> byte_count(DType dtype, std::span<const Index> shape) noexcept;

}  // namespace mixtral
