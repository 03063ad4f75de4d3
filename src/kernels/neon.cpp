// NEON (every 64-bit ARM). Row primitives are vectorised; products with packed weights are the plain ones.
#include "kernels/fill.hpp"
#include "mixtral/ops/native_table.hpp"

namespace mixtral::kernels {

void fill_neon(KernelTable& table) noexcept {
  table.name = "neon";
  fill_rows<xsimd::neon64>(table);
}

}  // namespace mixtral::kernels
