// Copying by all workers.
#pragma once

#include <algorithm>
#include <cstddef>

#include "mixtral/core/executor.hpp"

namespace mixtral {

inline void copy_bytes(Executor& executor, const std::byte* from, Index bytes, std::byte* to) {
  constexpr Index kTask = Index{1} << 20;
  executor.parallel_for((bytes + kTask - 1) / kTask, [&](Index i, int) {
    std::copy_n(from + i * kTask, std::min(kTask, bytes - i * kTask), to + i * kTask);
  });
}

}  // namespace mixtral
