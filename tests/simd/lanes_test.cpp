#include "mixtral/simd/lanes.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "support/compare.hpp"
#include "support/random.hpp"

using namespace mixtral;
using simd::kLanes;
using simd::Lanes;

// The instruction sets' own tables are tested through tests/simd/rows_test.cpp; here the types as this program
// is compiled: plain arrays, and the vector unit that every processor of this kind has.

namespace {

template <class Arch>
std::vector<float> values(const Lanes<Arch>& v) {
  std::vector<float> out(kLanes);
  v.store(out.data());
  return out;
}

template <class Arch>
float exp_of(float x) {
  return exp(Lanes<Arch>::broadcast(x)).first();
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

TYPE_TO_STRING_AS("plain arrays", simd::Scalar);
TYPE_TO_STRING_AS("default architecture", xsimd::default_arch);

TEST_CASE_TEMPLATE("loading the first n elements touches no more and fills up with zeros", Arch, simd::Scalar,
                   xsimd::default_arch) {
  for (Index n = 1; n <= kLanes; ++n) {
    std::vector<float> in(static_cast<std::size_t>(n));
    std::iota(in.begin(), in.end(), 1.0f);
    const auto v = Lanes<Arch>::load_first(in.data(), n);
    for (Index l = 0; l < kLanes; ++l) {
      CHECK(values(v)[static_cast<std::size_t>(l)] == (l < n ? static_cast<float>(l + 1) : 0.0f));
    }
    std::vector<float> out(static_cast<std::size_t>(n), -1.0f);
    v.store_first(out.data(), n);
    CHECK(out == in);
  }
}

TEST_CASE_TEMPLATE("lanes are added from the upper half to the lower", Arch, simd::Scalar, xsimd::default_arch) {
  test::Random random(4);
  for (int round = 0; round < 100; ++round) {
    const auto in = random.values<float>(kLanes, -1e3, 1e3);
    std::vector<float> tree = in;
    for (std::size_t half = 8; half > 0; half /= 2) {
      for (std::size_t l = 0; l < half; ++l) tree[l] += tree[l + half];
    }
    CHECK(Lanes<Arch>::load(in.data()).sum() == tree[0]);
  }
}

TEST_CASE_TEMPLATE("sixteen lanes of eight are added as those of one", Arch, simd::Scalar, xsimd::default_arch) {
  test::Random random(5);
  for (int round = 0; round < 100; ++round) {
    const auto in = random.values<float>(8 * kLanes, -1e3, 1e3);
    float sums[8];
    Lanes<Arch>::sum_each_of_8(in.data(), sums);
    for (Index i = 0; i < 8; ++i) CHECK(sums[i] == Lanes<Arch>::load(in.data() + i * kLanes).sum());
  }
}

TEST_CASE_TEMPLATE("the largest lane and the first that equals a value are found at every place", Arch, simd::Scalar,
                   xsimd::default_arch) {
  for (std::size_t place = 0; place < 16; ++place) {
    std::vector<float> in(kLanes, -3.0f);
    for (std::size_t l = place; l < 16; l += 5) in[l] = 2.0f;
    const auto v = Lanes<Arch>::load(in.data());
    CHECK(v.largest() == 2.0f);
    CHECK(v.find(2.0f) == static_cast<int>(place));
    CHECK(v.find(7.0f) == static_cast<int>(kLanes));
    CHECK(v.find(std::nanf("")) == static_cast<int>(kLanes));
  }
}

TEST_CASE_TEMPLATE("min and max give their second operand where a NaN is involved", Arch, simd::Scalar,
                   xsimd::default_arch) {
  using V = Lanes<Arch>;
  const V nan = V::broadcast(std::nanf("")), one = V::broadcast(1.0f);
  CHECK(std::isnan(max(one, nan).first()));
  CHECK(std::isnan(min(one, nan).first()));
  CHECK(max(nan, one).first() == 1.0f);
  CHECK(min(nan, one).first() == 1.0f);
}

TEST_CASE_TEMPLATE("16-bit weights widen exactly, all 65536 of both kinds, at odd addresses too", Arch, simd::Scalar,
                   xsimd::default_arch) {
  const auto check = [](auto kind) {
    using T = decltype(kind);
    std::vector<std::uint16_t> all(65536);
    std::iota(all.begin(), all.end(), std::uint16_t{0});
    std::vector<std::byte> shifted(2 * all.size() + 1);
    std::memcpy(shifted.data() + 1, all.data(), 2 * all.size());
    int wrong = 0;
    for (Index i = 0; i < 65536; i += kLanes) {
      const auto got = values(Lanes<Arch>::load(reinterpret_cast<const T*>(shifted.data() + 1 + 2 * i)));
      for (std::size_t l = 0; l < 16; ++l) {
        const float want = to_float(T{all[static_cast<std::size_t>(i) + l]});
        wrong += !test::same_bits({&got[l], 1}, {&want, 1});
      }
    }
    CHECK(wrong == 0);
  };
  check(bf16{});
  check(f16{});
}

TEST_CASE_TEMPLATE("exp has a relative error below 2e-7 in its whole range", Arch, simd::Scalar, xsimd::default_arch) {
  double worst = 0, at = 0;
  for (double x = -87.29; x <= 88.29; x += 0.00037) {
    const auto xf = static_cast<float>(x);
    const double want = std::exp(static_cast<double>(xf));
    const double error = std::abs(static_cast<double>(exp_of<Arch>(xf)) - want) / want;
    if (error > worst) worst = error, at = x;
  }
  CAPTURE(at);
  CHECK(worst < 2e-7);
}

TEST_CASE_TEMPLATE("exp near zero, at the ends of its range and beyond", Arch, simd::Scalar, xsimd::default_arch) {
  CHECK(exp_of<Arch>(0.0f) == 1.0f);
  CHECK(exp_of<Arch>(-0.0f) == 1.0f);
  CHECK(exp_of<Arch>(1e-30f) == 1.0f);
  CHECK(exp_of<Arch>(-1e-40f) == 1.0f);
  CHECK(exp_of<Arch>(-kInfinity) == 0.0f);
  CHECK(exp_of<Arch>(-87.4f) == 0.0f);
  CHECK(exp_of<Arch>(-1e30f) == 0.0f);
  CHECK(exp_of<Arch>(88.3f) < kInfinity);
  CHECK(exp_of<Arch>(kInfinity) == exp_of<Arch>(88.3f));
  CHECK(exp_of<Arch>(1e30f) == exp_of<Arch>(88.3f));
  CHECK(std::isnan(exp_of<Arch>(std::nanf(""))));
  float last = 0;
  for (float x = -87.3f; x < 88.0f; x += 0.01f) {
    const float y = exp_of<Arch>(x);
    CHECK(y > last);
    last = y;
  }
}
