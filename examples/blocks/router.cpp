// Router: the two best of eight experts per token, in one SIMD register; then once more with an expert masked.
#include "mixtral/moe/router.hpp"

#include <algorithm>
#include <vector>

#include "example.hpp"
#include "mixtral/ops/native_table.hpp"

using namespace mixtral;

int main() {
  SerialExecutor executor;
  Scratch scratch;
  const OpContext ctx{native_table(), executor, scratch};

  const Index n_tokens = 4, dim = 64, n_experts = 8, top_k = 2;
  const Matrix<float> x = example::made_up(n_tokens, dim, 1), gate = example::made_up(n_experts, dim, 2);
  Matrix<float> logits(Shape<2>{{n_tokens, n_experts}});
  Matrix<float> weights(Shape<2>{{n_tokens, top_k}}), want_weights(weights.shape());
  Tensor<ExpertId, 2> experts(weights.shape()), want_experts(weights.shape());

  int failures = 0;
  std::vector<std::uint8_t> available(n_experts, 1);
  for (int round = 0; round < 2; ++round) {
    moe::route(ctx, MatrixView(gate.view()), x.view(), available, {logits.view(), experts.view(), weights.view()});
    for (Index t = 0; t < n_tokens; ++t) {
      std::printf("token %d: expert %d (%.3f), expert %d (%.3f)\n", static_cast<int>(t), experts.row(t)[0],
                  static_cast<double>(weights.row(t)[0]), experts.row(t)[1], static_cast<double>(weights.row(t)[1]));
    }
    reference::route(logits.cview(), available, want_experts.view(), want_weights.view());
    failures += example::agrees("router", weights.view(), want_weights.view());
    failures += std::equal(experts.span().begin(), experts.span().end(), want_experts.span().begin()) ? 0 : 1;
    available[static_cast<std::size_t>(experts.row(0)[0])] = 0;  // the first token has to do without its favourite
  }
  return failures;
}
