// Blocks of GGML's types in another order: the same weights in panels (core/packed_layout.hpp).
#pragma once

#include <cstddef>
#include <optional>

#include "mixtral/core/dtype.hpp"
#include "mixtral/core/packed_layout.hpp"
#include "mixtral/io/ggml_type.hpp"

namespace mixtral {

// The packed type that has a type's weights exactly, if there is one.
std::optional<DType> exact_type(GgmlType type) noexcept;

// One panel of a type that has an exact one: rows[r] are `cols` weights, whole blocks at any alignment; null: zeros.
// out [PackedLayout::panel_bytes()]. False if a scale is infinite or no number.
bool fill_panel(GgmlType type, const std::byte* const (&rows)[kPanelRows], Index cols, std::byte* out) noexcept;

}  // namespace mixtral
