// How much memory this process may still take.
#pragma once

#include "mixtral/core/types.hpp"

namespace mixtral {

// Bytes: what the system says is available, or what is left of the control group that a container sees as its own
// (version 2), or of the process's limit of addresses, if that is less. The largest Index if the system does not say.
Index available_memory() noexcept;

}  // namespace mixtral
