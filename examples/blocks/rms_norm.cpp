// RMSNorm of a batch of rows.
#include "mixtral/ops/rms_norm.hpp"

#include "example.hpp"
#include "mixtral/ops/native_table.hpp"

using namespace mixtral;

int main() {
  SerialExecutor executor;
  Scratch scratch;
  const OpContext ctx{native_table(), executor, scratch};

  const Matrix<float> x = example::made_up(3, 100, 1), weight = example::made_up(1, 100, 2);
  Matrix<float> y(x.shape()), want(x.shape());
  ops::rms_norm(ctx, x.view(), weight.span(), /*eps=*/1e-5f, y.view());
  reference::rms_norm(x.view(), weight.span(), 1e-5f, want.view());
  return example::agrees("rms_norm", y.view(), want.view());
}
