// What each instruction set's file exports. Only tables and numbers cross this line.
#pragma once

#include "mixtral/ops/kernel_table.hpp"

namespace mixtral::kernels {

void fill_reference(KernelTable& table) noexcept;
void fill_avx2(KernelTable& table) noexcept;
void fill_avx2_vnni(KernelTable& table) noexcept;
void fill_avx512(KernelTable& table) noexcept;
void fill_avx512_vnni(KernelTable& table) noexcept;
void fill_avx512_bf16(KernelTable& table) noexcept;  // products of bf16 pairs alone
void fill_amx_int8(KernelTable& table) noexcept;     // from how many tokens on: isa.cpp says
void fill_neon(KernelTable& table) noexcept;

void fill_amx_bf16(KernelTable& table) noexcept;  // products of bf16 pairs alone

// Whether the matrix unit multiplies as it should. Need the system's permission to use it.
bool amx_int8_works() noexcept;
bool amx_bf16_works() noexcept;

}  // namespace mixtral::kernels
