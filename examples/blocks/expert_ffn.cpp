// One expert, y = w2 (silu(w1 x) * (w3 x)), on a block of gathered rows.
#include "mixtral/moe/expert_ffn.hpp"

#include "example.hpp"
#include "mixtral/core/openmp_executor.hpp"
#include "mixtral/ops/native_table.hpp"

using namespace mixtral;

int main() {
  OpenMpExecutor executor(2);  // without -fopenmp it runs everything on this thread
  Scratch scratch;
  const OpContext ctx{native_table(), executor, scratch};

  const Index n_rows = 3, dim = 48, hidden_dim = 80;
  const Matrix<float> w1 = example::made_up(hidden_dim, dim, 1), w3 = example::made_up(hidden_dim, dim, 2);
  Matrix<float> w2 = example::made_up(dim, hidden_dim, 3);
  for (float& w : w2.span()) w /= 64;
  const Matrix<float> x = example::made_up(n_rows, dim, 4);
  Matrix<float> y(x.shape()), want(x.shape());
  moe::expert_ffn(ctx, moe::ExpertWeights{w1.view(), w2.view(), w3.view()}, x.view(), y.view());
  reference::expert_ffn(w1.view(), w2.cview(), w3.view(), x.view(), want.view());
  return example::agrees("expert_ffn", y.view(), want.view());
}
