// What each instruction set's file exports. Only tables and numbers cross this line.
#pragma once

#include "mixtral/ops/kernel_table.hpp"

namespace mixtral::kernels {

// Whose CPU it is: what is measured best on it differs. Others count as Intel's.
enum class CpuMaker { kIntel, kAmd };

void fill_reference(KernelTable& table, CpuMaker maker) noexcept;
void fill_avx2(KernelTable& table, CpuMaker maker) noexcept;
void fill_avx2_vnni(KernelTable& table, CpuMaker maker) noexcept;
void fill_avx512(KernelTable& table, CpuMaker maker) noexcept;
void fill_avx512_vnni(KernelTable& table, CpuMaker maker) noexcept;
void fill_avx512_bf16(KernelTable& table) noexcept;  // products of bf16 pairs alone
void fill_amx_int8(KernelTable& table, CpuMaker maker) noexcept;
void fill_neon(KernelTable& table, CpuMaker maker) noexcept;

// Whether the matrix unit multiplies as it should. Needs the system's permission to use it.
bool amx_int8_works() noexcept;

}  // namespace mixtral::kernels
