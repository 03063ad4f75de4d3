// Which expert of a layer, and which weights of it.
#pragma once

#include <compare>

#include "mixtral/core/types.hpp"

namespace mixtral::moe {

struct ExpertKey {
  ExpertId expert;
  ExpertVersion version = kCurrentVersion;

  auto operator<=>(const ExpertKey&) const = default;
};

}  // namespace mixtral::moe
