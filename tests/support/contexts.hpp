// Op contexts for tests: every table, and executors with several workers.
#pragma once

#include <memory>
#include <string>

#include "mixtral/core/openmp_executor.hpp"
#include "mixtral/core/thread_executor.hpp"
#include "mixtral/ops/context.hpp"
#include "support/tables.hpp"

namespace mixtral::test {

// A table, one worker, and scratch memory of its own.
struct SerialContext {
  explicit SerialContext(const KernelTable& kernels) : table(kernels) {}
  SerialContext() : SerialContext(make_table(best_isa())) {}

  KernelTable table;
  SerialExecutor executor;
  Scratch scratch;
  OpContext op{table, executor, scratch};
};

// Calls f(context) for every table, the header-only one included.
template <class F>
void for_each_context(F&& f) {
  for_each_table_and_native([&](const KernelTable& table) {
    SerialContext context(table);
    f(context.op);
  });
}

// Calls f(executor) with one to three workers of each kind.
template <class F>
void for_each_executor(F&& f) {
  const auto run = [&](const std::string& executor_name, std::unique_ptr<Executor> executor) {
    CAPTURE(executor_name);
    f(*executor);
  };
  run("serial", std::make_unique<SerialExecutor>());
  for (const int n : {1, 2, 3}) {
#ifdef _OPENMP
    run("openmp " + std::to_string(n), std::make_unique<OpenMpExecutor>(n));
#endif
    run("threads " + std::to_string(n), std::make_unique<ThreadExecutor>(n));
  }
}

}  // namespace mixtral::test
