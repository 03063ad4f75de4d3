// y = x w^T on four threads of our own: bf16 weights stay bf16 in memory, sums are float32. The result has the
// same bits for any number of threads.
#include "mixtral/ops/linear.hpp"

#include <algorithm>

#include "example.hpp"
#include "mixtral/core/thread_executor.hpp"
#include "mixtral/ops/native_table.hpp"

using namespace mixtral;

int main() {
  ThreadExecutor threads(4);  // or OpenMpExecutor, or your own pool behind mixtral::Executor
  SerialExecutor serial;
  Scratch scratch;

  const Index n_tokens = 5, in = 300, out = 700;
  const Matrix<float> x = example::made_up(n_tokens, in, 1), wide = example::made_up(out, in, 2);
  Matrix<bf16> w(wide.shape());
  std::transform(wide.span().begin(), wide.span().end(), w.span().begin(), [](float v) { return to_bf16(v / 16); });

  Matrix<float> y(Shape<2>{{n_tokens, out}}), alone(y.shape()), want(y.shape());
  ops::linear(OpContext{native_table(), threads, scratch}, MatrixView(w.view()), x.view(), y.view());
  ops::linear(OpContext{native_table(), serial, scratch}, MatrixView(w.view()), x.view(), alone.view());
  const bool same_bits = std::equal(y.span().begin(), y.span().end(), alone.span().begin());
  std::printf("one thread and four: %s\n", same_bits ? "the same bits" : "DIFFERENT");

  reference::linear(w.cview(), x.view(), want.view());
  return example::agrees("linear", y.view(), want.view()) + (same_bits ? 0 : 1);
}
