// What each instruction set's file exports. Only tables and numbers cross this line.
#pragma once

#include "mixtral/ops/kernel_table.hpp"

namespace mixtral::kernels {

// Whose CPU it is: what is measured best on it differs. Others count as Intel's.
enum class CpuMaker { kIntel, kAmd };

void fill_reference(KernelTable& table, CpuMaker maker) noexcept;
void fill_avx2(KernelTable& table, CpuMaker maker) noexcept;
void fill_avx512(KernelTable& table, CpuMaker maker) noexcept;
void fill_avx512_vnni(KernelTable& table, CpuMaker maker) noexcept;

}  // namespace mixtral::kernels
