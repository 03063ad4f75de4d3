#include "probes/probes.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "mixtral/core/thread_executor.hpp"

using namespace mixtral;

namespace {

bool is_rate(double value) { return std::isfinite(value) && value > 0; }

}  // namespace

TEST_CASE("Every probe that this CPU can run gives a positive, finite rate, the others 0") {
  const Arena arena(Index{64} << 20);
  std::memset(arena.data(), 1, arena.size());
  for (const int workers : {1, 2}) {
    ThreadExecutor executor(workers);
    CHECK(is_rate(probes::dram_read_rate(arena, executor)));
    for (const Isa isa : all_isas()) {
      CAPTURE(name_of(isa));
      const bool has_probe = isa != Isa::kReference && supported(Isa::kAvx2);
      CHECK(is_rate(probes::f32_rate(executor, isa)) == has_probe);
      CHECK(is_rate(probes::byte_product_rate(executor, isa)) == has_probe);
      CHECK(is_rate(probes::pair_product_rate(executor, isa)) == (pair_unit(isa) != PairUnit::kPlain));
    }
    using enum probes::ByteProducts;
    for (const auto kind : {kAvx2, kAvx2Eight}) {
      CHECK(is_rate(probes::byte_product_rate(executor, kind)) == supported(Isa::kAvx2));
    }
    CHECK(is_rate(probes::byte_product_rate(executor, kVnni)) == supported(Isa::kAvx512Vnni));
    CHECK(is_rate(probes::byte_product_rate(executor, kAvx2Vnni)) == supported(Isa::kAvx2Vnni));
    CHECK(is_rate(probes::byte_product_rate(executor, kAmx)) == supported(Isa::kAmxInt8));
  }
}

TEST_CASE("The machine has a name") { CHECK_FALSE(probes::machine_name().empty()); }
