// The sparse layer: route, then x += weighted outputs of each token's two experts. And the loss that keeps the
// experts evenly used.
#include "mixtral/moe/moe_layer.hpp"

#include <vector>

#include "example.hpp"
#include "mixtral/moe/load_balancing_loss.hpp"
#include "mixtral/ops/native_table.hpp"

using namespace mixtral;

namespace {

constexpr Index kTokens = 6, kDim = 32, kHiddenDim = 48, kExperts = 8, kTopK = 2;

struct Expert {
  Matrix<float> w1, w2, w3;
  explicit Expert(std::uint32_t seed)
      : w1(example::made_up(kHiddenDim, kDim, seed)),
        w2(example::made_up(kDim, kHiddenDim, seed + 1)),
        w3(example::made_up(kHiddenDim, kDim, seed + 2)) {
    for (float& w : w2.span()) w /= 64;
  }
};

// Every chosen expert on every token by itself: what the grouped layer has to equal.
void plain_layer(const std::vector<Expert>& experts, const moe::RouterOutput& routing, TensorView<const float, 2> h,
                 TensorView<float, 2> x) {
  Matrix<float> outputs(Shape<2>{{kTokens * kTopK, kDim}});
  for (Index pair = 0; pair < kTokens * kTopK; ++pair) {
    const Expert& e = experts[static_cast<std::size_t>(routing.experts.row(pair / kTopK)[pair % kTopK])];
    reference::expert_ffn(e.w1.view(), e.w2.cview(), e.w3.view(), h.rows(pair / kTopK, 1),
                          outputs.view().rows(pair, 1));
  }
  reference::combine(outputs.cview(), TensorView<const float, 2>(routing.weights), x);
}

}  // namespace

int main() {
  SerialExecutor executor;
  Scratch scratch;
  const OpContext ctx{native_table(), executor, scratch};

  std::vector<Expert> owned;
  std::vector<moe::ExpertWeights> experts;
  for (std::uint32_t e = 0; e < kExperts; ++e) owned.emplace_back(3 * e);
  for (const Expert& e : owned) experts.push_back({e.w1.view(), e.w2.view(), e.w3.view()});

  const Matrix<float> h = example::made_up(kTokens, kDim, 100), gate = example::made_up(kExperts, kDim, 101);
  Matrix<float> logits(Shape<2>{{kTokens, kExperts}}), weights(Shape<2>{{kTokens, kTopK}});
  Tensor<ExpertId, 2> chosen(weights.shape());
  const moe::RouterOutput routing{logits.view(), chosen.view(), weights.view()};
  moe::route(ctx, MatrixView(gate.view()), h.view(), {}, routing);

  moe::DispatchPlan plan;  // kept by the caller: its memory is used again in the next step
  Matrix<float> x(h.shape()), want(h.shape());
  moe::moe_layer(ctx, experts, routing, plan, h.view(), x.view());
  moe::LoadBalancingLoss loss(kExperts);
  loss.add(logits.cview(), chosen.cview());
  std::printf("load balancing loss %.4f (even use: %d)\n", loss.value(), static_cast<int>(kTopK));

  plain_layer(owned, routing, h.view(), want.view());
  return example::agrees("moe_layer", x.view(), want.view());
}
