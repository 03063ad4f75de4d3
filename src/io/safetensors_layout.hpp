// What the reader and the writer of safetensors share.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "mixtral/core/dtype.hpp"
#include "mixtral/core/types.hpp"
#include "mixtral/io/safetensors.hpp"

namespace mixtral {

inline constexpr Index kMaxSafetensorsHeader = 100'000'000;  // bytes; the format's own limit

// Bytes of a dense tensor; nothing if a dimension is negative or the product overflows.
std::optional<Index> byte_count(DType dtype, std::span<const Index> shape) noexcept;

// A tensor as the header lists it.
struct HeaderTensor {
  std::string_view name;
  DType dtype = DType::kU8;
  std::span<const Index> shape;
  Index bytes = 0;
};

// All that stands before the data: the length, the JSON and the spaces behind it, a multiple of `alignment` bytes. The
// tensors' data follow in this order, without gaps. `writer` begins every message. Throws Error(kInvalidArgument) on
// names that no reader could take, and on a header that is too long.
std::string safetensors_header(std::span<const HeaderTensor> tensors, const SafetensorsMetadata& metadata,
                               Index alignment, std::string_view writer);

}  // namespace mixtral
