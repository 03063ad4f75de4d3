#include "mixtral/ops/rope.hpp"

#include <doctest/doctest.h>

#include "support/blocks.hpp"
#include "support/budgets.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace mixtral;

namespace {

// The manifest's tolerances; README.md of the golden data says why the last position is so loose. Against
// float64 we are as good there as anywhere, since our angles are computed in double.
constexpr test::Budget kUpTo17{"golden rope_positions_up_to_17", 2e-6, 0};
constexpr test::Budget kAt32767{"golden rope_position_32767", 5e-3, 0};

void check_golden(const std::string& name, Index head_dim) {
  const test::Block block(name);
  const auto stored = block.matrix<std::int32_t>("positions");
  const std::vector<Index> positions(stored.span().begin(), stored.span().end());
  const auto n = static_cast<Index>(positions.size());
  for (const std::string tensor : {"q", "k"}) {
    const auto x = block.matrix(tensor), want = block.matrix(tensor + "_rot");
    const auto exact = block.matrix<double>(tensor + "_rot_f64");
    const Index width = x.size() / n;  // heads side by side in one row per position
    test::for_each_context([&](const OpContext& ctx) {
      Matrix<float> y(Shape<2>{{n, width}});
      std::copy_n(x.data(), x.size(), y.data());
      ops::rope(ctx, y.view(), std::span<const Index>(positions), {head_dim, 1e6}, RopePairing::kHalfSplit);
      for (Index t = 0; t < n; ++t) {
        CAPTURE(t);
        const auto row = static_cast<std::size_t>(width);
        const auto from = static_cast<std::size_t>(t) * row;
        test::check_close(y.view().row_span(t), want.span().subspan(from, row), t < 3 ? kUpTo17 : kAt32767);
        test::check_close(y.view().row_span(t), exact.span().subspan(from, row), kUpTo17);
      }
    });
  }
}

}  // namespace

TEST_CASE("rope gives the golden blocks") {
  check_golden("rope_d16_theta1e+06", 16);
  check_golden("rope_d128_theta1e+06", 128);
}

TEST_CASE_TEMPLATE("rope of every element type agrees with the double oracle, both pairings", T, float, bf16, f16,
                   double) {
  test::Random random(43);
  const std::vector<Index> positions = {0, 1, 2, 31, 4096, 100000};
  for (const Index head_dim : {2, 10, 16, 34, 80}) {
    for (const auto pairing : {RopePairing::kHalfSplit, RopePairing::kInterleaved}) {
      const auto x = random.matrix<T>(6, 3 * head_dim);
      auto want = test::in_double(x);
      reference::rope(want.view(), positions, {head_dim, 1e4}, pairing == RopePairing::kInterleaved);
      test::for_each_context([&](const OpContext& ctx) {
        Matrix<T> y(x.shape());
        std::copy_n(x.data(), x.size(), y.data());
        ops::rope(ctx, y.view(), std::span<const Index>(positions), {head_dim, 1e4}, pairing);
        test::check_close(y, want, test::stored_as<T>(test::kRotation));
      });
    }
  }
}

TEST_CASE("both pairings rotate the same vector, its dimensions in another order") {
  test::Random random(44);
  const Index d = 12, position = 7;
  const auto x = random.matrix<float>(1, d);
  const test::SerialContext c;
  Matrix<float> half(x.shape()), mixed(x.shape());
  for (Index i = 0; i < d; ++i) {
    half.data()[i] = x.data()[i];
    mixed.data()[i < d / 2 ? 2 * i : 2 * (i - d / 2) + 1] = x.data()[i];
  }
  ops::rope(c.op, half.view(), {&position, 1}, {d, 1e4}, RopePairing::kHalfSplit);
  ops::rope(c.op, mixed.view(), {&position, 1}, {d, 1e4}, RopePairing::kInterleaved);
  for (Index i = 0; i < d; ++i) {
    CHECK(half.data()[i] == doctest::Approx(mixed.data()[i < d / 2 ? 2 * i : 2 * (i - d / 2) + 1]));
  }
}

TEST_CASE("rope refuses odd heads and shapes that do not fit, for every element type") {
  const test::SerialContext c;
  const std::vector<Index> positions = {0, 1};
  Matrix<float> x(Shape<2>{{2, 9}});
  Matrix<double> wide(Shape<2>{{2, 9}});
  const auto refuse = [&](auto view, Index head_dim, std::size_t n) {
    test::error_of([&] {
      ops::rope(c.op, view, std::span<const Index>(positions).first(n), {head_dim, 1e4}, RopePairing::kHalfSplit);
    });
  };
  refuse(x.view(), 3, 2);
  refuse(wide.view(), 3, 2);
  refuse(x.view(), 4, 2);
  refuse(x.view(), 0, 2);
  refuse(x.view(), -2, 2);
  refuse(x.view(), 9, 1);
  Matrix<float> cos(Shape<2>{{2, 4}}), sin(Shape<2>{{2, 3}}), y(Shape<2>{{2, 8}});
  test::error_of([&] { ops::rope(c.op, y.view(), {cos.view(), sin.view()}, RopePairing::kHalfSplit); });
  test::error_of([&] { ops::rope_angles(positions, {8, 1e4}, {cos.view(), sin.view()}); });
}
