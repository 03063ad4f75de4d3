// Plain arrays: runs on any CPU, and gives the same bits as the vector tables.
#include "kernels/fill.hpp"
#include "mixtral/ops/native_table.hpp"

namespace mixtral::kernels {

void fill_reference(KernelTable& table) noexcept {
  table.name = "reference";
  fill_rows<simd::Scalar>(table);
  fill_plain_packed<simd::Scalar>(table);
}

}  // namespace mixtral::kernels
