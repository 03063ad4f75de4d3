// What every op is given: kernels, threads and scratch memory. No op uses anything global.
#pragma once

#include <memory>

#include "mixtral/core/executor.hpp"
#include "mixtral/core/scratch.hpp"
#include "mixtral/ops/kernel_table.hpp"

namespace mixtral {

// One call of an op at a time per context. Table and executor must outlive it.
struct OpContext {
  const KernelTable& table;
  Executor& executor;
  Scratch& scratch;
};

}  // namespace mixtral
