// Whose row of a step it is: plain data, for all that works row by row.
#pragma once

#include "mixtral/core/routing_identity.hpp"
#include "mixtral/core/types.hpp"

namespace mixtral {

struct RowInfo {
  SlotId slot;                                // which sequence of the step's cache
  Index position;                             // where in it, from 0
  const RoutingIdentity* identity = nullptr;  // what its experts are chosen by; null: the model's own routing
};

}  // namespace mixtral
