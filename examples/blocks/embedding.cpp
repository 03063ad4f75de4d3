// Embedding: token ids to rows of a bf16 matrix, widened exactly to float32.
#include "mixtral/ops/embedding.hpp"

#include <algorithm>

#include "example.hpp"
#include "mixtral/ops/native_table.hpp"

using namespace mixtral;

int main() {
  SerialExecutor executor;
  Scratch scratch;
  const OpContext ctx{native_table(), executor, scratch};

  const Index vocab_size = 32, dim = 20;
  const Matrix<float> wide = example::made_up(vocab_size, dim, 1);
  Matrix<bf16> table(wide.shape());
  std::transform(wide.span().begin(), wide.span().end(), table.span().begin(), [](float x) { return to_bf16(x); });

  const TokenId ids[] = {7, 31, 0, 7};
  Matrix<float> x(Shape<2>{{4, dim}}), want(x.shape());
  ops::embedding(ctx, MatrixView(table.view()), ids, x.view());
  reference::embedding(table.cview(), std::span<const TokenId>(ids), want.view());
  return example::agrees("embedding", x.view(), want.view());
}
