// Dispatch plan: a counting sort that turns each token's choices into one block of rows per expert.
#include "mixtral/moe/dispatch_plan.hpp"

#include <cstdio>

using namespace mixtral;

int main() {
  ExpertId choices[] = {2, 0,   // token 0
                        1, 2,   // token 1
                        2, 3};  // token 2
  moe::DispatchPlan plan;
  plan.build(TensorView<const ExpertId, 2>(choices, Shape<2>{{3, 2}}), /*n_experts=*/4);
  for (Index e = 0; e < plan.n_experts(); ++e) {
    std::printf("expert %d takes tokens:", static_cast<int>(e));
    for (const Index t : plan.tokens_of(e)) std::printf(" %d", static_cast<int>(t));
    std::printf("\n");
  }
  // Expert 2 is the first choice of tokens 0 and 2 and the second of token 1: rows 2, 3, 4, in token order.
  const bool ok = plan.rows_of(2) == 3 && plan.row_of(0, 0) == 2 && plan.row_of(1, 1) == 3 && plan.row_of(2, 0) == 4;
  return ok ? 0 : 1;
}
