#include "mixtral/moe/load_balancing_loss.hpp"

#include <doctest/doctest.h>

#include "support/error_of.hpp"
#include "support/golden.hpp"
#include "support/random.hpp"

using namespace mixtral;

namespace {

template <class T>
Matrix<T> matrix(Index rows, Index cols, const std::vector<T>& values) {
  Matrix<T> out(Shape<2>{{rows, cols}});
  std::copy(values.begin(), values.end(), out.data());
  return out;
}

}  // namespace

TEST_CASE("an even router's loss is top_k, one that always takes the same expert's approaches n_experts") {
  const Matrix<float> even(Shape<2>{{4, 4}});
  const auto taken_in_turn = matrix<ExpertId>(4, 2, {0, 1, 2, 3, 1, 0, 3, 2});
  moe::LoadBalancingLoss loss(4);
  CHECK(loss.value() == 0);
  loss.add(even.view(), taken_in_turn.view());
  CHECK(loss.value() == doctest::Approx(2));

  const auto one_sided = matrix<float>(2, 4, {50, 0, 0, 0, 50, 0, 0, 0});
  const auto first = matrix<ExpertId>(2, 1, {0, 0});
  moe::LoadBalancingLoss worst(4);
  worst.add(one_sided.view(), first.view());
  CHECK(worst.value() == doctest::Approx(4));
}

TEST_CASE("the loss equals the hand-computed one, in one call or many") {
  // softmax(ln 1, ln 3) = (1/4, 3/4); softmax(ln 1, ln 1) = (1/2, 1/2): p = (3/8, 5/8); f = (1/2, 1/2).
  const auto logits = matrix<double>(2, 2, {0, std::log(3.0), 0, 0});
  const auto experts = matrix<ExpertId>(2, 1, {1, 0});
  const double want = 2 * (0.5 * 0.375 + 0.5 * 0.625);
  moe::LoadBalancingLoss whole(2), parts(2);
  whole.add(logits.view(), experts.view());
  parts.add(logits.view().rows(0, 1), experts.view().rows(0, 1));
  parts.add(logits.view().rows(1, 1), experts.view().rows(1, 1));
  CHECK(whole.value() == doctest::Approx(want).epsilon(1e-15));
  CHECK(parts.value() == whole.value());
}

TEST_CASE("the loss of every golden case is within the manifest's tolerance") {
  const auto manifest = test::read_json(test::golden_dir() / "manifest.json");
  const auto tolerance = test::tolerance(manifest, "load_balancing_loss");
  int checked = 0;
  for (const auto& entry : manifest.at("cases")) {
    if (!entry.contains("load_balancing_loss") || entry["load_balancing_loss"].is_null()) continue;
    const SafetensorsFile file(test::golden_dir() / entry.at("file").get<std::string>());
    moe::LoadBalancingLoss loss(8);
    for (int layer = 0; file.find(str("layer.", layer, ".router_logits")) != nullptr; ++layer) {
      const auto logits = test::elements<float>(file, str("layer.", layer, ".router_logits"));
      const auto ids = test::elements<std::int32_t>(file, str("layer.", layer, ".expert_ids"));
      const auto n = static_cast<Index>(logits.size()) / 8;
      loss.add(matrix<float>(n, 8, logits).cview(), matrix<ExpertId>(n, 2, ids).cview());
    }
    const double want = entry["load_balancing_loss"];
    CHECK(std::abs(loss.value() - want) <= tolerance.atol + tolerance.rtol * want);
    ++checked;
  }
  CHECK(checked >= 6);
}

TEST_CASE("the loss refuses what does not fit, and has then counted nothing") {
  moe::LoadBalancingLoss loss(2);
  const Matrix<float> logits(Shape<2>{{2, 2}}), wide(Shape<2>{{2, 3}});
  const auto good = matrix<ExpertId>(2, 1, {0, 1}), bad = matrix<ExpertId>(2, 1, {0, 2});
  loss.add(logits.view(), good.view());
  const double before = loss.value();
  CHECK(test::names(test::error_of([&] { loss.add(logits.view(), bad.view()); }), "expert 2 of 2"));
  test::error_of([&] { loss.add(wide.view(), good.view()); });
  test::error_of([&] { loss.add(logits.view(), good.view().rows(0, 1)); });
  CHECK(loss.value() == before);
  test::error_of([] { moe::LoadBalancingLoss(0); });
  test::error_of([] { moe::LoadBalancingLoss(-1); });
}

TEST_CASE("places without a choice count as none") {
  test::Random random(31);
  const Matrix<float> logits = random.matrix<float>(3, 4);
  const auto experts = matrix<ExpertId>(3, 2, {0, 3, 1, 2, 3, 1}),
             padded = matrix<ExpertId>(3, 3, {0, moe::kNoExpert, 3, 1, 2, moe::kNoExpert, moe::kNoExpert, 3, 1});
  moe::LoadBalancingLoss want(4), got(4);
  want.add(logits.view(), experts.view());
  got.add(logits.view(), padded.view());
  CHECK(got.value() == want.value());
}
