// Uses the headers alone: one expert on OpenMP's threads or, without them, on this one.
#include <cstdio>

#include "mixtral/core/openmp_executor.hpp"
#include "mixtral/moe/expert_ffn.hpp"
#include "mixtral/ops/native_table.hpp"

using namespace mixtral;

int main() {
  OpenMpExecutor executor(2);
  Scratch scratch;
  const OpContext ctx{native_table(), executor, scratch};

  Matrix<float> x(Shape<2>{{1, 2}}), y(x.shape()), w(Shape<2>{{2, 2}});
  x.row(0)[0] = 1.0f;
  w.row(0)[0] = w.row(1)[1] = 2.0f;
  moe::expert_ffn(ctx, moe::ExpertWeights{w.view(), w.view(), w.view()}, x.view(), y.view());
  // silu(2) * 2 * 2 = 8 / (1 + e^-2)
  std::printf("%.4f %.4f\n", static_cast<double>(y.row(0)[0]), static_cast<double>(y.row(0)[1]));
  return y.row(0)[0] > 7.0463f && y.row(0)[0] < 7.0465f && y.row(0)[1] == 0.0f ? 0 : 1;
}
