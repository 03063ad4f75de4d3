// The kernel tables under test.
#pragma once

#include <doctest/doctest.h>

#include <string>

#include "mixtral/ops/isa.hpp"

namespace mixtral::test {

// The table that a program gets which links nothing of ours, as this program is compiled.
const KernelTable& header_table() noexcept;

// Calls f(table) for every table that runs on this machine, and says which do not.
template <class F>
void for_each_table(F&& f) {
  for (const Isa isa : all_isas()) {
    if (!supported(isa)) {
      MESSAGE("skipped, not supported here: ", std::string(name_of(isa)));
      continue;
    }
    const KernelTable table = make_table(isa);
    const std::string table_name = table.name;
    CAPTURE(table_name);
    f(table);
  }
}

// Products of instruction sets that few machines have, on plain code in place of what is special to them: AMX with its
// matrix unit replaced, with packed weights and of bf16 pairs, needs AVX-512 VNNI; AVX2 with VNNI, vpdpbusd replaced,
// with packed weights, needs AVX2.
void fill_plain_tiles(KernelTable& table) noexcept;
// The same kernels on the unit's own instructions, which are executed one by one as they trap (amx_traps.cpp).
void fill_trapped_amx(KernelTable& table) noexcept;
void fill_plain_byte_products(KernelTable& table) noexcept;

// Also those, where they run.
template <class F>
void for_each_table_and_plain_units(F&& f) {
  for_each_table(f);
#if defined(MIXTRAL_X86)
  const auto also = [&](Isa needs, void (*fill)(KernelTable&) noexcept) {
    if (!supported(needs)) return;
    KernelTable table = make_table(needs);
    fill(table);
    const std::string table_name = table.name;
    CAPTURE(table_name);
    f(table);
  };
  also(Isa::kAvx2, fill_plain_byte_products);
  also(Isa::kAvx512Vnni, fill_plain_tiles);
  if (!supported(Isa::kAmxInt8)) also(Isa::kAvx512Vnni, fill_trapped_amx);
#endif
}

// Also the header-only one. Without a fused multiply-add (plain x86-64) it rounds differently, so it takes part
// in comparisons with a budget only.
template <class F>
void for_each_table_and_native(F&& f) {
  for_each_table(f);
  const std::string table_name = "native";
  CAPTURE(table_name);
  f(header_table());
}

inline KernelTable reference_table() { return make_table(Isa::kReference); }

}  // namespace mixtral::test
