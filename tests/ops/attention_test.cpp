#include "mixtral/ops/attention.hpp"

#include <doctest/doctest.h>

#include "mixtral/ops/linear.hpp"
#include "mixtral/ops/rope.hpp"
#include "support/blocks.hpp"
#include "support/budgets.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace mixtral;

namespace {

template <class T>
void check_case(Index n, Index n_heads, Index n_kv_heads, Index head_dim, Index window) {
  CAPTURE(n);
  CAPTURE(n_heads);
  CAPTURE(n_kv_heads);
  CAPTURE(head_dim);
  CAPTURE(window);
  test::Random random(52);
  const auto q = random.matrix<T>(n, n_heads * head_dim, -2, 2);
  const auto k = random.matrix<T>(n, n_kv_heads * head_dim), v = random.matrix<T>(n, n_kv_heads * head_dim);
  const auto wide_q = test::in_double(q), wide_k = test::in_double(k), wide_v = test::in_double(v);
  Matrix<double> want(q.shape());
  reference::attention(wide_q.cview(), wide_k.cview(), wide_v.cview(), head_dim, window, want.view());
  test::for_each_context([&](const OpContext& ctx) {
    Matrix<T> out(q.shape());
    ops::attention(ctx, q.view(), k.view(), v.view(), head_dim, window, out.view());
    test::check_close(out, want, test::stored_as<T>(test::kDotProduct));
  });
}

void check_golden(const std::string& name, Index window) {
  const test::Block block(name);
  const auto x = block.matrix("x"), want = block.matrix("y");
  const auto wq = block.matrix("q_proj.weight"), wk = block.matrix("k_proj.weight");
  const auto wv = block.matrix("v_proj.weight"), wo = block.matrix("o_proj.weight");
  const Index n = x.dim(0), head_dim = 8;
  std::vector<Index> positions(static_cast<std::size_t>(n));
  for (Index t = 0; t < n; ++t) positions[static_cast<std::size_t>(t)] = t;
  test::for_each_context([&](const OpContext& ctx) {
    Matrix<float> q(Shape<2>{{n, 32}}), k(Shape<2>{{n, 16}}), v(Shape<2>{{n, 16}}), out(q.shape()), y(x.shape());
    ops::linear(ctx, MatrixView(wq.view()), x.view(), q.view());
    ops::linear(ctx, MatrixView(wk.view()), x.view(), k.view());
    ops::linear(ctx, MatrixView(wv.view()), x.view(), v.view());
    for (auto* rotated : {&q, &k}) {
      ops::rope(ctx, rotated->view(), std::span<const Index>(positions), {head_dim, 1e6}, RopePairing::kHalfSplit);
    }
    ops::attention(ctx, q.cview(), k.cview(), v.cview(), head_dim, window, out.view());
    ops::linear(ctx, MatrixView(wo.view()), out.cview(), y.view());
    test::check_close(y, want, test::block_output(want));
  });
}

}  // namespace

TEST_CASE("attention gives the golden blocks, causal and windowed") {
  check_golden("attention_causal", 0);
  check_golden("attention_window", 8);
}

TEST_CASE_TEMPLATE("attention of every element type agrees with the double oracle", T, float, bf16, f16, double) {
  for (const Index n : {0, 1, 2, 33, 50}) {
    check_case<T>(n, 4, 2, 10, 0);
    check_case<T>(n, 4, 2, 10, 7);
  }
}

TEST_CASE("attention agrees with the double oracle for any head size, grouping and window") {
  for (const Index head_dim : {2, 6, 16, 32, 80, 128}) {
    check_case<float>(40, 6, 1, head_dim, 0);  // multi-query
    check_case<float>(40, 6, 2, head_dim, 0);  // grouped
    check_case<float>(40, 6, 6, head_dim, 0);  // full
  }
  for (const Index window : {1, 16, 31, 32, 33, 1000}) {
    for (const Index n : {1, 31, 32, 33, 64, 65, 97}) check_case<float>(n, 2, 1, 6, window);
  }
}

TEST_CASE("attention gives the same bits for any number of workers and on every table") {
  test::Random random(53);
  const auto q = random.matrix<float>(70, 8 * 20), k = random.matrix<float>(70, 2 * 20),
             v = random.matrix<float>(70, 2 * 20);
  Scratch scratch;
  SerialExecutor serial;
  const KernelTable reference = test::reference_table();
  Matrix<float> want(q.shape());
  ops::attention({reference, serial, scratch}, q.view(), k.view(), v.view(), 20, 40, want.view());
  test::for_each_table([&](const KernelTable& table) {
    test::for_each_executor([&](Executor& executor) {
      Matrix<float> out(q.shape());
      ops::attention({table, executor, scratch}, q.view(), k.view(), v.view(), 20, 40, out.view());
      CHECK(test::same_bits(out, want));
    });
  });
}

TEST_CASE("one row of a long context, cut into chunks for many workers, has the bits that it has among many rows") {
  const Index n = 2 * simd::kKvChunk + 70, n_kv_heads = 2, group = 2, head_dim = 4;
  test::Random random(55);
  const auto q = random.matrix<float>(n, n_kv_heads * group * head_dim, -2, 2);
  const auto k = random.matrix<float>(n, n_kv_heads * head_dim), v = random.matrix<float>(n, n_kv_heads * head_dim);
  for (const DType dtype : kKvTypes) {
    CAPTURE(name_of(dtype));
    const KvLayout kv{1, n_kv_heads, head_dim, dtype};
    std::vector<std::vector<std::byte>> memory;
    std::vector<const std::byte*> pages;
    for (Index t = 0; t < n; ++t) {
      if (t % KvLayout::kPositions == 0) {
        memory.emplace_back(static_cast<std::size_t>(kv.page_bytes()));
        pages.push_back(memory.back().data());
      }
      kv.write(memory.back().data(), 0, t, k.row(t), v.row(t));
    }
    std::vector<ops::AttentionRow> rows;
    for (Index t = 0; t < n; ++t) rows.push_back({pages.data(), t});
    for (const Index window : {Index{0}, simd::kKvChunk + 100}) {
      Scratch scratch;
      SerialExecutor serial;
      const KernelTable table = make_table(best_isa());
      Matrix<float> want(q.shape());
      ops::attention({table, serial, scratch}, q.cview(), rows, kv, 0, window, want.view());
      test::for_each_executor([&](Executor& executor) {
        Scratch own;
        for (const Index t : {simd::kKvChunk - 1, simd::kKvChunk, 2 * simd::kKvChunk - 1, 2 * simd::kKvChunk, n - 2}) {
          // Two rows of one sequence and a third one from another place.
          const std::vector<ops::AttentionRow> some = {rows[static_cast<std::size_t>(t)],
                                                       rows[static_cast<std::size_t>(t + 1)], rows[3]};
          Matrix<float> few(Shape<2>{{3, q.dim(1)}}), out(few.shape());
          std::copy_n(q.row(t), 2 * q.dim(1), few.row(0));
          std::copy_n(q.row(3), q.dim(1), few.row(2));
          ops::attention({table, executor, own}, few.cview(), some, kv, 0, window, out.view());
          const auto same = [&](Index row, Index of) {
            return test::same_bits(out.view().row_span(row), want.view().row_span(of));
          };
          CHECK(same(0, t));
          CHECK(same(1, t + 1));
          CHECK(same(2, 3));
        }
        // Blocks double as they grow, the first one has 64 KiB.
        const Index most = ops::attention_scratch_bytes(kv, group, n, executor.n_workers());
        CHECK(static_cast<Index>(own.capacity_bytes()) <= 2 * most + 128 * 1024);
      });
    }
  }
}

TEST_CASE("a layout writes each position's keys and values where the kernel reads them") {
  const KvLayout kv{2, 3, 5};
  CHECK(kv.page_bytes() == 2 * 3 * 32 * (5 + 16) * 4);
  test::Random random(54);
  std::vector<float> page(static_cast<std::size_t>(kv.page_bytes() / 4), -1.0f);
  const auto k = random.values<float>(15), v = random.values<float>(15);
  kv.write(reinterpret_cast<std::byte*>(page.data()), 1, 32 + 7, k.data(), v.data());
  Index written = 0;
  for (const float x : page) written += x != -1.0f;
  CHECK(written == 30);
  for (Index head = 0; head < 3; ++head) {
    for (Index d = 0; d < 5; ++d) {
      const auto i = static_cast<std::size_t>(head * 5 + d);
      const Index block = kv.block_offset(1, head) / 4, values = kv.block().v_offset() / 4;
      CHECK(page[static_cast<std::size_t>(block + d * 32 + 7)] == k[i]);
      CHECK(page[static_cast<std::size_t>(block + values + 7 * 16 + d)] == v[i]);
    }
  }
}

TEST_CASE("attention refuses shapes that do not fit and layers that do not exist") {
  const test::SerialContext c;
  Matrix<float> q(Shape<2>{{2, 24}}), k(Shape<2>{{2, 8}}), odd(Shape<2>{{2, 9}}), longer(Shape<2>{{3, 8}});
  const auto refuse = [&](Matrix<float>& keys, Matrix<float>& values, Index head_dim, Matrix<float>& out) {
    test::error_of([&] { ops::attention(c.op, q.cview(), keys.cview(), values.cview(), head_dim, 0, out.view()); });
  };
  refuse(k, odd, 8, q);
  refuse(odd, odd, 8, q);
  refuse(k, k, 0, q);
  refuse(k, k, 3, q);
  refuse(longer, longer, 8, q);
  refuse(k, k, 8, k);

  const std::vector<std::byte> page(1 << 14);
  const std::byte* pages[] = {page.data()};
  const std::vector<ops::AttentionRow> rows = {{pages, 0}, {pages, 1}};
  for (const Index layer : {-1, 1}) {
    CHECK(test::names(test::error_of([&] {
                        ops::attention(c.op, q.cview(), rows, KvLayout{1, 1, 8}, layer, 0, q.view());
                      }),
                      str("layer ", layer)));
  }
  test::error_of([&] { ops::attention(c.op, q.cview(), rows, KvLayout{1, 1, 7}, 0, 0, q.view()); });
  test::error_of([&] { ops::attention(c.op, q.cview(), rows, KvLayout{1, 0, 8}, 0, 0, q.view()); });
  test::error_of([&] { ops::attention(c.op, q.cview(), std::span(rows).first(1), KvLayout{1, 1, 8}, 0, 0, q.view()); });
}
