// Softmax in place, and SwiGLU.
#include "mixtral/ops/activation.hpp"

#include "example.hpp"
#include "mixtral/ops/native_table.hpp"

using namespace mixtral;

int main() {
  SerialExecutor executor;
  Scratch scratch;
  const OpContext ctx{native_table(), executor, scratch};

  Matrix<float> scores = example::made_up(2, 37, 1), want_scores = example::made_up(2, 37, 1);
  ops::softmax(ctx, scores.view());
  reference::softmax(want_scores.view());

  const Matrix<float> gate = example::made_up(2, 37, 2), up = example::made_up(2, 37, 3);
  Matrix<float> h(gate.shape()), want_h(gate.shape());
  ops::swiglu(ctx, gate.view(), up.view(), h.view());
  reference::swiglu(gate.view(), up.view(), want_h.view());
  return example::agrees("softmax", scores.view(), want_scores.view()) +
         example::agrees("swiglu", h.view(), want_h.view());
}
