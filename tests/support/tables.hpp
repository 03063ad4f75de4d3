// The kernel tables under test.
#pragma once

#include <doctest/doctest.h>

#include <string>

#include "mixtral/runtime/isa.hpp"

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

// Sets the products with packed weights of AMX, its matrix unit replaced by plain code. Needs AVX-512 VNNI.
void fill_plain_tiles(KernelTable& table) noexcept;

// Also that one, where it runs: for products with packed weights.
template <class F>
void for_each_packed_table(F&& f) {
  for_each_table(f);
#if defined(MIXTRAL_X86)
  if (!supported(Isa::kAvx512Vnni)) return;
  KernelTable table = make_table(Isa::kAvx512Vnni);
  fill_plain_tiles(table);
  const std::string table_name = table.name;
  CAPTURE(table_name);
  f(table);
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
