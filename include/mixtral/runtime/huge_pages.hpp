// Large blocks of scratch memory in huge pages.
#pragma once

#include "mixtral/core/scratch.hpp"

namespace mixtral {

// Blocks of 2 MiB and more lie in huge pages where the system has them, smaller ones are the allocator's. Activations
// of a long prompt are read from many places at once, more than there are entries for pages of 4 KiB.
BlockSource huge_pages() noexcept;

}  // namespace mixtral
