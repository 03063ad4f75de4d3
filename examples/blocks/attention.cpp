// Causal grouped-query attention with a sliding window, fed token by token through the paged KV cache.
#include "mixtral/ops/attention.hpp"

#include "example.hpp"
#include "mixtral/model/kv_cache.hpp"
#include "mixtral/ops/native_table.hpp"

using namespace mixtral;

int main() {
  SerialExecutor executor;
  Scratch scratch;
  const OpContext ctx{native_table(), executor, scratch};

  const Index n = 50, n_heads = 4, n_kv_heads = 2, head_dim = 16, window = 40;
  const Matrix<float> q = example::made_up(n, n_heads * head_dim, 1);
  const Matrix<float> k = example::made_up(n, n_kv_heads * head_dim, 2),
                      v = example::made_up(n, n_kv_heads * head_dim, 3);

  const KvLayout layout{.n_layers = 1, .n_kv_heads = n_kv_heads, .head_dim = head_dim, .dtype = DType::kF32};
  KvCache cache(layout, /*max_slots=*/1, /*max_pages=*/2);
  const SlotId slot = cache.open();
  Matrix<float> out(q.shape()), want(q.shape());
  for (Index t = 0; t < n; ++t) {
    cache.reserve(slot, 1);
    layout.write(cache.pages(slot)[t / KvLayout::kPositions], /*layer=*/0, t, k.row(t), v.row(t));
    const ops::AttentionRow row{cache.pages(slot), t};
    ops::attention(ctx, q.view().rows(t, 1), {&row, 1}, layout, /*layer=*/0, window, out.view().rows(t, 1));
    cache.commit(slot, 1);
  }
  std::printf("the cache holds %lld positions in %lld bytes\n", static_cast<long long>(cache.length(slot)),
              static_cast<long long>(cache.allocated_bytes()));

  reference::attention(q.view(), k.view(), v.view(), head_dim, window, want.view());
  return example::agrees("attention", out.view(), want.view());
}
