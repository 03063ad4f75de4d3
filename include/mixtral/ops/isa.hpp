// Which instruction sets this CPU and this system allow, and the kernel table of each.
#pragma once

#include <span>
#include <string_view>

#include "mixtral/ops/kernel_table.hpp"

namespace mixtral {

// Pinned: values are never reused.
enum class Isa { kReference = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Vnni = 3, kAmxInt8 = 4, kAvx2Vnni = 5, kNeon = 6 };

// All that this library knows, best last; `supported` says what runs here.
std::span<const Isa> all_isas() noexcept;
std::string_view name_of(Isa isa) noexcept;
// "avx2" -> Isa::kAvx2. Throws Error(kInvalidArgument) that lists the names.
Isa isa_from_name(std::string_view name);

// Compiled in, reported by the CPU (CPUID), and its registers saved by the system (XGETBV). AMX is also tried, and
// timed against AVX-512 VNNI, when it is first asked about (some 4 ms; nothing is allocated): that says from how many
// tokens on its tables give it products, KernelTable::matrix_unit_tokens, on which no result depends. For that the
// system is asked for permission to use it, once for the process: signal stacks (sigaltstack) must then have room for
// its 8 KiB, and it is refused if one has not.
bool supported(Isa isa) noexcept;
// The last supported one.
Isa best_isa() noexcept;

// The set that this one adds to: AVX2 to AVX-512, as to AVX2 with VNNI. The reference's is itself.
Isa base_of(Isa isa) noexcept;
// Whether `part` is `isa`, its base, the base of that, ...
bool includes(Isa isa, Isa part) noexcept;

// The reference table, overwritten by each supported set that `cap` includes: no entry is null. `name` is the last
// one's.
//
// BF16 weights are multiplied in float32, or, if asked for, by activations that are rounded to bf16, two products at a
// time where the CPU can (AVX-512 BF16, if `cap` includes AVX-512; AMX-BF16, if it includes AMX): other bits, and bits
// that differ between CPUs with such units and without. The router is never rounded.
enum class Bf16Products { kFloat32, kRounded };
KernelTable make_table(Isa cap, Bf16Products bf16 = Bf16Products::kFloat32) noexcept;
// What multiplies rounded activations in such a table.
enum class PairUnit { kPlain, kAvx512Bf16, kAmxBf16 };
PairUnit pair_unit(Isa cap) noexcept;

}  // namespace mixtral
