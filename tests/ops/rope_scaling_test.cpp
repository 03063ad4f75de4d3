#include "mixtral/ops/rope_scaling.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mixtral/ops/rope.hpp"
#include "support/budgets.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

using namespace mixtral;
using Kind = RopeScaling::Kind;

namespace {

RopeScaling linear(float factor) { return {.kind = Kind::kLinear, .factor = factor}; }
RopeScaling yarn(float factor, Index original) {
  return {.kind = Kind::kYarn,
          .factor = factor,
          .attention_factor = static_cast<float>(yarn_attention_factor(static_cast<double>(factor))),
          .original_max_positions = original};
}

// tests/golden/rope_scaling, see make.py there.
struct Golden {
  std::string name;
  Index head_dim;
  double theta;
  RopeScaling scaling;
  std::vector<Index> positions;
  std::vector<double> cos, sin;  // [positions, head_dim / 2]
};

std::vector<Golden> read_golden() {
  const auto dir = test::golden_dir() / "rope_scaling";
  const SafetensorsFile numbers(dir / "rope_scaling.safetensors");
  const nlohmann::json document = test::read_json(dir / "cases.json");
  std::vector<Golden> out;
  for (const auto& [name, c] : document["cases"].items()) {
    RopeScaling scaling = linear(c["factor"]);
    scaling.attention_factor = c["attention_factor"];
    if (c["kind"] == "yarn") {
      scaling.kind = Kind::kYarn;
      scaling.original_max_positions = c["original_max_positions"];
      scaling.beta_fast = c["beta_fast"];
      scaling.beta_slow = c["beta_slow"];
      scaling.truncate = c["truncate"];
    }
    out.push_back({name, c["head_dim"], c["theta"], scaling, document["positions"],
                   test::elements<double>(numbers, name + ".cos"), test::elements<double>(numbers, name + ".sin")});
  }
  return out;
}

}  // namespace

TEST_CASE("scaled angles are those of an independent computation in float64, far beyond the original context") {
  const std::vector<Golden> cases = read_golden();
  REQUIRE(cases.size() == 13);
  for (const Golden& c : cases) {
    CAPTURE(c.name);
    const auto n = static_cast<Index>(c.positions.size());
    REQUIRE(c.positions.back() == 65536);
    Matrix<float> cos(Shape<2>{{n, c.head_dim / 2}}), sin(cos.shape());
    ops::rope_angles(c.positions, {c.head_dim, c.theta, c.scaling}, {cos.view(), sin.view()});
    test::check_close(cos.span(), std::span<const double>(c.cos), test::kRotation);
    test::check_close(sin.span(), std::span<const double>(c.sin), test::kRotation);
  }
}

TEST_CASE("heads turn by the scaled angles in both pairings, as in the float64 computation") {
  test::Random random(45);
  for (const Golden& c : read_golden()) {
    CAPTURE(c.name);
    const auto n = static_cast<Index>(c.positions.size());
    const Index half = c.head_dim / 2;
    const auto x = random.matrix<float>(n, 2 * c.head_dim, -0.5, 0.5);
    for (const RopePairing pairing : {RopePairing::kHalfSplit, RopePairing::kInterleaved}) {
      const bool interleaved = pairing == RopePairing::kInterleaved;
      Matrix<double> want(x.shape());
      for (Index t = 0; t < n; ++t) {
        for (Index i = 0; i < c.head_dim; ++i) {
          const auto angle = static_cast<std::size_t>(t * half + i % half);
          const Index head = i / half * c.head_dim, pair = i % half;
          const Index a = head + (interleaved ? 2 * pair : pair), b = head + (interleaved ? 2 * pair + 1 : pair + half);
          const double xa = static_cast<double>(x.row(t)[a]), xb = static_cast<double>(x.row(t)[b]);
          want.row(t)[a] = xa * c.cos[angle] - xb * c.sin[angle];
          want.row(t)[b] = xb * c.cos[angle] + xa * c.sin[angle];
        }
      }
      test::for_each_context([&](const OpContext& ctx) {
        Matrix<float> y(x.shape());
        std::copy_n(x.data(), x.size(), y.data());
        ops::rope(ctx, y.view(), std::span<const Index>(c.positions), {c.head_dim, c.theta, c.scaling}, pairing);
        test::check_close(y, want, test::kRotation);
      });
    }
  }
}

TEST_CASE("linear with factor 1 is no scaling, bit for bit") {
  const RopeFrequencies plain(128, 1e6), scaled(128, 1e6, linear(1));
  for (Index i = 0; i < 64; ++i) CHECK(plain(i) == scaled(i));
  CHECK(plain.magnitude() == 1);
  CHECK(scaled.magnitude() == 1);
}

TEST_CASE("yarn keeps fast pairs, divides slow ones, and falls steadily between them") {
  const RopeFrequencies plain(128, 1e6), scaled(128, 1e6, yarn(4, 32768));
  double before = 1;
  for (Index i = 0; i < 64; ++i) {
    CAPTURE(i);
    const double share = scaled(i) / plain(i);
    if (i <= 23) CHECK(share == 1);        // the pair with 32 turns is 23.6
    if (i >= 40) CHECK(share == 1.0 / 4);  // with one, 39.7
    if (i > 23 && i <= 40) CHECK(share < before);
    before = share;
  }
}

TEST_CASE("a ramp that has no room, or lies outside the head, still gives finite frequencies between both") {
  for (const Index original : {Index{1}, Index{6}, Index{7}, Index{4096}, Index{1} << 30}) {
    for (const double theta : {1.0000001, 1.5, 1e4, 1e38}) {
      for (const bool truncate : {false, true}) {
        RopeScaling scaling = yarn(8, original);
        scaling.truncate = truncate;
        scaling.beta_fast = scaling.beta_slow = 1;  // begins where it ends
        const RopeFrequencies plain(64, theta), scaled(64, theta, scaling);
        for (Index i = 0; i < 32; ++i) {
          CHECK(scaled(i) <= plain(i));
          CHECK(scaled(i) >= plain(i) / 8 * (1 - 1e-12));
        }
      }
    }
  }
}

TEST_CASE("yarn's own attention_factor is 0.1 ln(factor) + 1, and 1 where nothing is stretched") {
  CHECK(yarn_attention_factor(1) == 1);
  CHECK(yarn_attention_factor(0.5) == 1);
  CHECK(yarn_attention_factor(4) == doctest::Approx(1.1386294361119891).epsilon(1e-15));
  CHECK(yarn_attention_factor(40, 0.707) == doctest::Approx(1.2608037774058554).epsilon(1e-15));
}

TEST_CASE("a wrong scaling is named with its value") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const struct {
    const char* message;
    std::function<void(RopeScaling&)> breaks;
  } cases[] = {
      {"rope_scaling: factor is 0, expected a finite number > 0", [](auto& s) { s.factor = 0; }},
      {"factor is -2", [](auto& s) { s.factor = -2; }},
      {"factor is nan", [=](auto& s) { s.factor = nan; }},
      {"factor is inf", [=](auto& s) { s.factor = infinity; }},
      {"attention_factor is 0", [](auto& s) { s.attention_factor = 0; }},
      {"attention_factor is inf", [=](auto& s) { s.attention_factor = infinity; }},
      {"original_max_positions is 0, expected 1 to 1073741824", [](auto& s) { s.original_max_positions = 0; }},
      {"original_max_positions is 1073741825", [](auto& s) { s.original_max_positions = (Index{1} << 30) + 1; }},
      {"beta_fast is nan", [=](auto& s) { s.beta_fast = nan; }},
      {"beta_slow is 0", [](auto& s) { s.beta_slow = 0; }},
      {"beta_fast is 1, beta_slow 2", [](auto& s) { s.beta_fast = 1, s.beta_slow = 2; }},
  };
  for (const auto& wrong : cases) {
    RopeScaling s = yarn(4, 4096);
    wrong.breaks(s);
    const Error error = test::error_of([&] { s.validate(1e6); });
    CHECK(error.code() == ErrorCode::kInvalidArgument);
    CHECK(test::names(error, wrong.message));
    CHECK(test::names(test::error_of([&] { RopeFrequencies(64, 1e6, s); }), wrong.message));
  }
  CHECK(test::names(test::error_of([&] { yarn(4, 4096).validate(1); }), "rope_theta is 1, yarn needs more than 1"));
  CHECK_NOTHROW(linear(4).validate(1));
  CHECK_NOTHROW(RopeScaling{.factor = nan}.validate(1));  // unused
}
