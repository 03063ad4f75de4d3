// What each instruction set's file exports. Only tables and numbers cross this line.
#pragma once

#include "mixtral/ops/kernel_table.hpp"

namespace mixtral::kernels {

void fill_reference(KernelTable& table) noexcept;
void fill_avx2(KernelTable& table) noexcept;
void fill_avx512(KernelTable& table) noexcept;
void fill_avx512_vnni(KernelTable& table) noexcept;

}  // namespace mixtral::kernels
