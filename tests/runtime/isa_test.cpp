#include "mixtral/runtime/isa.hpp"

#include <doctest/doctest.h>

#include <string>

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
    for (int i = 0; i < kLinearTypes; ++i) {
      CHECK((t.linear[i] != nullptr));
      CHECK((t.widen[i] != nullptr));
    }
    for (int i = 0; i < kPackedTypes; ++i) {
      CHECK((t.packed_linear[i] != nullptr));
      CHECK((t.pack_slab[i] != nullptr));
    }
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
    for (int i = 0; i < kNumKvTypes; ++i) CHECK((t.attention[i] != nullptr));
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

TEST_CASE("the matrix unit is timed where there is one") {
  CHECK((matrix_unit_tokens() > 0) == supported(Isa::kAmxInt8));
  CHECK(matrix_unit_tokens() == matrix_unit_tokens());
}

TEST_CASE("an unknown name is refused with the list of the known ones") {
  const Error error = test::error_of([] { isa_from_name("avx3"); });
  CHECK(error.code() == ErrorCode::kInvalidArgument);
  CHECK(test::names(error, "avx3"));
  for (const Isa isa : all_isas()) CHECK(test::names(error, std::string(name_of(isa))));
}
