// Run-time choice of the kernels.
#include <array>

#if defined(MIXTRAL_X86)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/calibration.hpp"
#include "kernels/fill.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/float_environment.hpp"
#include "mixtral/ops/isa.hpp"

namespace mixtral {
namespace {

#if defined(MIXTRAL_X86)

struct CpuidRegisters {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuidRegisters cpuid(unsigned leaf, unsigned subleaf) noexcept {
  CpuidRegisters r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

// The register sets that the system saves on a context switch; 0 without OSXSAVE.
unsigned saved_register_sets() noexcept {
  constexpr unsigned kOsXsave = 1u << 27;
  if ((cpuid(1, 0).ecx & kOsXsave) == 0) return 0;
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

bool has(unsigned value, unsigned bits) noexcept { return (value & bits) == bits; }

bool cpu_has_avx2() noexcept {
  constexpr unsigned kFma = 1u << 12, kAvx = 1u << 28, kF16c = 1u << 29;  // leaf 1, ecx
  constexpr unsigned kAvx2 = 1u << 5;                                     // leaf 7, ebx
  constexpr unsigned kXmmYmm = 0x6;
  return has(cpuid(1, 0).ecx, kFma | kAvx | kF16c) && has(cpuid(7, 0).ebx, kAvx2) &&
         has(saved_register_sets(), kXmmYmm);
}

bool cpu_has_avx2_vnni() noexcept {
  constexpr unsigned kAvxVnni = 1u << 4;  // leaf 7, subleaf 1, eax
  return cpu_has_avx2() && has(cpuid(7, 1).eax, kAvxVnni);
}

bool cpu_has_avx512() noexcept {
  // leaf 7, ebx: F, DQ, CD, BW, VL
  constexpr unsigned kFeatures = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;
  constexpr unsigned kXmmYmmMasksZmm = 0xe6;
  return cpu_has_avx2() && has(cpuid(7, 0).ebx, kFeatures) && has(saved_register_sets(), kXmmYmmMasksZmm);
}

bool cpu_has_avx512_bf16() noexcept {
  constexpr unsigned kBf16 = 1u << 5;  // leaf 7, subleaf 1, eax
  return cpu_has_avx512() && has(cpuid(7, 1).eax, kBf16);
}

bool cpu_has_avx512_vnni() noexcept {
  constexpr unsigned kVnni = 1u << 11;  // leaf 7, ecx
  return cpu_has_avx512() && has(cpuid(7, 0).ecx, kVnni);
}

// The system has to be asked for the matrix unit's registers; it refuses if a thread's signal stack has no room for
// them.
bool may_use_amx() noexcept {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

// From how many tokens on the matrix unit is the faster one, measured once it has shown that it multiplies as it
// should: hosts differ by a factor of four. 0: there is none.
Index calibrate_amx() noexcept {
  constexpr unsigned kTileInt8 = 1u << 24 | 1u << 25;  // leaf 7, edx
  constexpr unsigned kTileRegisters = 1u << 17 | 1u << 18;
  if (!cpu_has_avx512_vnni() || !has(cpuid(7, 0).edx, kTileInt8) || !has(saved_register_sets(), kTileRegisters)) {
    return 0;
  }
  const FloatScope floats;  // an unusual one would be measured, or trap
  if (!may_use_amx() || !kernels::amx_int8_works()) return 0;
  KernelTable table{};
  kernels::fill_avx512_vnni(table);
  kernels::fill_amx_int8(table);
  return kernels::tokens_where_faster(table.packed_linear[DType::kP4], table.packed_linear_tiles[DType::kP4]);
}

Index amx_tokens() noexcept {
  static const Index tokens = calibrate_amx();
  return tokens;
}

bool cpu_has_amx_int8() noexcept { return amx_tokens() > 0; }

void fill_amx_int8(KernelTable& table) noexcept {
  kernels::fill_amx_int8(table);
  table.matrix_unit_tokens = amx_tokens();
}

bool cpu_has_amx_bf16() noexcept {
  constexpr unsigned kTileBf16 = 1u << 22;  // leaf 7, edx
  if (!has(cpuid(7, 0).edx, kTileBf16) || !cpu_has_avx512_bf16() || !cpu_has_amx_int8()) return false;
  static const bool works = [] {
    const FloatScope floats;
    return kernels::amx_bf16_works();
  }();
  return works;
}

#endif

bool always() noexcept { return true; }

// One line per instruction set, worst first.
struct IsaEntry {
  Isa isa, base;
  std::string_view name;
  bool (*runs_here)() noexcept;
  void (*fill)(KernelTable&) noexcept;
};

constexpr IsaEntry kIsas[] = {
    {Isa::kReference, Isa::kReference, "reference", always, kernels::fill_reference},
#if defined(MIXTRAL_X86)
    {Isa::kAvx2, Isa::kReference, "avx2", cpu_has_avx2, kernels::fill_avx2},
    {Isa::kAvx2Vnni, Isa::kAvx2, "avx2_vnni", cpu_has_avx2_vnni, kernels::fill_avx2_vnni},
    {Isa::kAvx512, Isa::kAvx2, "avx512", cpu_has_avx512, kernels::fill_avx512},
    {Isa::kAvx512Vnni, Isa::kAvx512, "avx512_vnni", cpu_has_avx512_vnni, kernels::fill_avx512_vnni},
    {Isa::kAmxInt8, Isa::kAvx512Vnni, "amx_int8", cpu_has_amx_int8, fill_amx_int8},
#elif defined(MIXTRAL_AARCH64)
    {Isa::kNeon, Isa::kReference, "neon", always, kernels::fill_neon},
#endif
};

constexpr auto kAllIsas = [] {
  std::array<Isa, std::size(kIsas)> out{};
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = kIsas[i].isa;
  return out;
}();

const IsaEntry* find(Isa isa) noexcept {
  for (const IsaEntry& entry : kIsas) {
    if (entry.isa == isa) return &entry;
  }
  return nullptr;
}

}  // namespace

std::span<const Isa> all_isas() noexcept { return kAllIsas; }

std::string_view name_of(Isa isa) noexcept {
  const IsaEntry* entry = find(isa);
  return entry == nullptr ? "unknown" : entry->name;
}

Isa isa_from_name(std::string_view name) {
  std::string names;
  for (const IsaEntry& entry : kIsas) {
    if (entry.name == name) return entry.isa;
    names += str(names.empty() ? "" : ", ", entry.name);
  }
  fail(ErrorCode::kInvalidArgument, "unknown instruction set '", name, "', expected one of ", names);
}

bool supported(Isa isa) noexcept {
  const IsaEntry* entry = find(isa);
  return entry != nullptr && entry->runs_here();
}

Isa base_of(Isa isa) noexcept {
  const IsaEntry* entry = find(isa);
  return entry == nullptr ? Isa::kReference : entry->base;
}

bool includes(Isa isa, Isa part) noexcept {
  while (isa != part && isa != Isa::kReference) isa = base_of(isa);
  return isa == part;
}

Isa best_isa() noexcept {
  Isa best = Isa::kReference;
  for (const IsaEntry& entry : kIsas) {
    if (entry.runs_here()) best = entry.isa;
  }
  return best;
}

KernelTable make_table(Isa cap, Bf16Products bf16) noexcept {
  KernelTable table{};
  table.round_to_bf16 = bf16 == Bf16Products::kRounded;
  for (const IsaEntry& entry : kIsas) {
    if (includes(cap, entry.isa) && entry.runs_here()) entry.fill(table);
  }
#if defined(MIXTRAL_X86)
  const PairUnit unit = pair_unit(cap);
  if (unit != PairUnit::kPlain) kernels::fill_avx512_bf16(table);
  if (unit == PairUnit::kAmxBf16) kernels::fill_amx_bf16(table);
#endif
  return table;
}

PairUnit pair_unit([[maybe_unused]] Isa cap) noexcept {
#if defined(MIXTRAL_X86)
  if (includes(cap, Isa::kAmxInt8) && cpu_has_amx_bf16()) return PairUnit::kAmxBf16;
  if (includes(cap, Isa::kAvx512) && cpu_has_avx512_bf16()) return PairUnit::kAvx512Bf16;
#endif
  return PairUnit::kPlain;
}

}  // namespace mixtral
