// RoPE: rotates the heads of each row by its position, in both pairings.
#include "mixtral/ops/rope.hpp"

#include "example.hpp"
#include "mixtral/ops/native_table.hpp"

using namespace mixtral;

int main() {
  SerialExecutor executor;
  Scratch scratch;
  const OpContext ctx{native_table(), executor, scratch};

  const Index n_heads = 2, head_dim = 24, positions[] = {0, 1, 32767};
  const RopeFrequencies frequencies(head_dim, /*theta=*/1e6);
  int failures = 0;
  for (const RopePairing pairing : {RopePairing::kHalfSplit, RopePairing::kInterleaved}) {
    Matrix<float> x = example::made_up(3, n_heads * head_dim, 1), want = example::made_up(3, n_heads * head_dim, 1);
    ops::rope(ctx, x.view(), std::span<const Index>(positions), frequencies, pairing);
    const bool interleaved = pairing == RopePairing::kInterleaved;
    reference::rope(want.view(), std::span<const Index>(positions), frequencies, interleaved);
    failures += example::agrees(interleaved ? "rope, interleaved" : "rope, half-split", x.view(), want.view());
  }
  return failures;
}
