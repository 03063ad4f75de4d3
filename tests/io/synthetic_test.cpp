#include "mixtral/io/synthetic.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "support/contexts.hpp"
#include "support/error_of.hpp"

namespace mixtral {

TEST_CASE("the shape is Mixtral 8x7B's: 46.7 B parameters, 12.9 B of them active") {
  const ParameterCount all = count_parameters(synthetic_config("mixtral-8x7b"));
  CHECK(all.total == 46'702'792'704);
  CHECK(all.active == 12'879'925'248);
  CHECK(synthetic_config("mixtral-8x7b", 2).n_layers == 2);
  test::error_of([] { synthetic_config("mixtral"); });
}

TEST_CASE("weights are near a Gaussian of 0.02, the same for every executor, others for every matrix and row") {
  const TensorSlot slot{TensorKind::kW1, 1, 2};
  const Shape<2> shape{{200, 301}};
  std::vector<std::uint16_t> want;
  test::for_each_executor([&](Executor& executor) {
    SyntheticWeights source(executor);
    const MatrixView w = source(slot, shape);
    const auto* bits = reinterpret_cast<const std::uint16_t*>(w.data);
    const std::vector<std::uint16_t> got(bits, bits + shape.count());
    if (want.empty()) want = got;
    CHECK(got == want);
  });
  double sum = 0, squares = 0, fourth = 0;
  for (const std::uint16_t bits : want) {
    const double x = static_cast<double>(to_float(bf16{bits}));
    sum += x, squares += x * x, fourth += x * x * x * x;
  }
  const auto n = static_cast<double>(want.size());
  CHECK(std::abs(sum / n) < 3e-4);
  CHECK(std::sqrt(squares / n) == doctest::Approx(0.02).epsilon(0.02));
  CHECK(fourth / n / std::pow(squares / n, 2) == doctest::Approx(2.7).epsilon(0.05));  // a Gaussian's is 3

  SerialExecutor serial;
  SyntheticWeights source(serial);
  std::set<std::uint64_t> beginnings;
  Index rows = 0;
  for (const TensorSlot& s :
       {TensorSlot{TensorKind::kW1, 0, 0}, TensorSlot{TensorKind::kW1, 0, 1}, TensorSlot{TensorKind::kW1, 1, 0},
        TensorSlot{TensorKind::kW2, 0, 0}, TensorSlot{TensorKind::kWq, 0}, TensorSlot{TensorKind::kHead}}) {
    const MatrixView w = source(s, shape);
    for (Index r = 0; r < w.rows; ++r, ++rows) {
      std::uint64_t first;
      std::memcpy(&first, w.row(r), sizeof first);
      beginnings.insert(first);
    }
  }
  CHECK(static_cast<Index>(beginnings.size()) == rows);
}

}  // namespace mixtral
