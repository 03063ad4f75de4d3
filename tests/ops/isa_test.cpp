#include "mixtral/ops/isa.hpp"

#include <doctest/doctest.h>

#include <string>

#include "kernels/calibration.hpp"
#include "kernels/fill.hpp"
#include "support/allocations.hpp"
#include "support/error_of.hpp"
#include "support/tables.hpp"

using namespace mixtral;

TEST_CASE("the tables that run here") {
  std::string names;
  test::for_each_table([&](const KernelTable& table) { names += str(names.empty() ? "" : ", ", table.name); });
  MESSAGE("kernel tables tested on this machine: ", names);
  CHECK(names.starts_with("reference"));
}

TEST_CASE("no entry of a table is null") {
  test::for_each_table_and_native([](const KernelTable& t) {
    for (const DType dtype : decltype(t.linear)::kAll) {
      CHECK((t.linear[dtype] != nullptr));
      CHECK((t.widen[dtype] != nullptr));
    }
    for (const DType dtype : decltype(t.packed_linear)::kAll) {
      CHECK((t.packed_linear[dtype] != nullptr));
    }
    for (const DType dtype : decltype(t.pack_slab)::kAll) CHECK((t.pack_slab[dtype] != nullptr));
    CHECK((t.name != nullptr));
    CHECK((t.linear_pairs != nullptr));
    CHECK((t.round_bf16 != nullptr));
    CHECK((t.quantize_slab != nullptr));
    CHECK((t.rms_norm != nullptr));
    CHECK((t.softmax != nullptr));
    CHECK((t.swiglu != nullptr));
    CHECK((t.axpy != nullptr));
    CHECK((t.rope_half_split != nullptr));
    CHECK((t.rope_interleaved != nullptr));
    for (const DType dtype : decltype(t.attention)::kAll) CHECK((t.attention[dtype] != nullptr));
    CHECK((t.combine_attention != nullptr));
    CHECK((t.top2_of_8 != nullptr));
  });
}

TEST_CASE("a table made for an instruction set is that set's, and the best one is supported") {
  for (const Isa isa : all_isas()) {
    CHECK(isa_from_name(name_of(isa)) == isa);
    if (supported(isa)) CHECK(make_table(isa).name == name_of(isa));
  }
  CHECK(supported(Isa::kReference));
  CHECK(supported(best_isa()));
  CHECK(make_table(best_isa()).name == name_of(best_isa()));
}

TEST_CASE("an instruction set includes what it adds to, and its table nothing else") {
  CHECK(includes(Isa::kReference, Isa::kReference));
  for (const Isa isa : all_isas()) {
    CHECK(includes(isa, isa));
    CHECK(includes(isa, base_of(isa)));
    CHECK(includes(isa, Isa::kReference));
    CHECK(includes(Isa::kReference, isa) == (isa == Isa::kReference));
    CHECK(includes(isa, isa_from_name(make_table(isa).name)));
  }
#if defined(MIXTRAL_X86)
  CHECK(includes(Isa::kAmxInt8, Isa::kAvx2));
  CHECK_FALSE(includes(Isa::kAvx512, Isa::kAvx2Vnni));
  CHECK_FALSE(includes(Isa::kAvx2Vnni, Isa::kAvx512));
#endif
}

TEST_CASE("a table has products by a matrix unit, from a number of tokens on, where there is one") {
  for (const Isa isa : all_isas()) {
    const KernelTable t = make_table(isa);
    const bool unit = includes(isa, Isa::kAmxInt8) && supported(Isa::kAmxInt8);
    for (const DType dtype : decltype(t.packed_linear_tiles)::kAll) {
      CHECK((t.packed_linear_tiles[dtype] != nullptr) == unit);
    }
    CHECK((unit ? t.matrix_unit_tokens >= 16 : t.matrix_unit_tokens == KernelTable::kNever));
    CHECK(t.matrix_unit_tokens == make_table(isa).matrix_unit_tokens);
  }
}

#if defined(MIXTRAL_X86)
TEST_CASE("the matrix unit's instructions, executed as they trap, give the bits of plain code") {
  if (!supported(Isa::kAvx512Vnni)) return;
  KernelTable table = make_table(Isa::kAvx512Vnni);
  if (!supported(Isa::kAmxInt8)) test::fill_trapped_amx(table);
  CHECK(kernels::amx_int8_works());
  CHECK(kernels::amx_bf16_works());
}

TEST_CASE("timing the matrix unit allocates nothing, and one that takes longer gets no products") {
  if (!supported(Isa::kAvx512Vnni)) return;
  KernelTable table = make_table(Isa::kAvx512Vnni);
  test::fill_plain_tiles(table);
  const std::size_t before = test::allocations();
  CHECK(kernels::tokens_where_faster(table.packed_linear[DType::kP4], table.packed_linear_tiles[DType::kP4]) ==
        KernelTable::kNever);
  CHECK(kernels::tokens_where_faster(table.packed_linear_tiles[DType::kP4], table.packed_linear[DType::kP4]) == 16);
  CHECK(test::allocations() == before);
}
#endif

TEST_CASE("an unknown name is refused with the list of the known ones") {
  const Error error = test::error_of([] { isa_from_name("avx3"); });
  CHECK(error.code() == ErrorCode::kInvalidArgument);
  CHECK(test::names(error, "avx3"));
  for (const Isa isa : all_isas()) CHECK(test::names(error, std::string(name_of(isa))));
}
