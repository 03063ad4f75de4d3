// Uses the compiled library: the best kernels of the CPU that it runs on.
#include <cstdio>

#include "mixtral/ops/isa.hpp"

int main() {
  const mixtral::KernelTable table = mixtral::make_table(mixtral::best_isa());
  std::puts(table.name);
}
