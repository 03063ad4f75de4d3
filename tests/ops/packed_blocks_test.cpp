// Products with weights that have a scale for each block of 32 columns.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "mixtral/moe/expert_ffn.hpp"
#include "mixtral/ops/linear.hpp"
#include "support/block_weights.hpp"
#include "support/byte_products.hpp"
#include "support/compare.hpp"
#include "support/contexts.hpp"

using namespace mixtral;
using test::BlockPanels;
using test::BlockRows;

namespace {

Matrix<float> floats(test::Random& random, Index rows, Index cols) {
  return random.matrix<float>(rows, cols, -1.0, 1.0);
}

// Shapes in blocks of a type: tiles that are not full, slabs that are not, several.
template <class F>
void for_each_shape(GgmlType type, F&& f) {
  const Index block = info_of(type).block_weights;
  for (const auto& [rows, cols] : {std::pair<Index, Index>{70, 1120}, {32, 512}, {200, 64}, {33, 96}, {1, 32}}) {
    f(rows, (cols + block - 1) / block * block);
  }
}

}  // namespace

TEST_CASE("a product by blocks is what its numbers say, in double") {
  test::Random random(5);
  for (const GgmlType type : test::kBlockTypes) {
    for_each_shape(type, [&](Index rows, Index cols) {
      CAPTURE(name_of(type));
      CAPTURE(rows);
      CAPTURE(cols);
      test::SerialContext c;
      const BlockRows w(random, type, rows, cols);
      const BlockPanels p(w);
      const Matrix<float> numbers = w.floats(), x = floats(random, 3, cols);
      Matrix<float> y(Shape<2>{{3, rows}});
      ops::linear(c.op, p.view, x.cview(), y.view());
      for (Index t = 0; t < 3; ++t) {
        for (Index r = 0; r < rows; ++r) {
          const auto [want, size] = test::product_of_bytes(c.table, numbers.row(r), x.row(t), cols);
          // A few roundings of float32, of parts that a minimum makes larger than the sum.
          CHECK(std::abs(y.row(t)[r] - want) <= 4e-6 * size);
        }
      }
    });
  }
}

TEST_CASE("by blocks, too, every table gives the bits of the plain one, for 0 to 40 tokens, in every batch") {
  test::Random random(6);
  constexpr Index kMost = 40;
  for (const GgmlType type : test::kBlockTypes) {
    for_each_shape(type, [&](Index rows, Index cols) {
      test::SerialContext plain(test::reference_table());
      const BlockPanels p(BlockRows(random, type, rows, cols));
      const Matrix<float> x = floats(random, kMost, cols);
      Matrix<float> want(Shape<2>{{kMost, rows}});
      ops::linear(plain.op, p.view, x.cview(), want.view());
      test::for_each_table_and_plain_units([&](const KernelTable& table) {
        CAPTURE(table.name);
        CAPTURE(name_of(type));
        test::SerialContext c(table);
        for (Index n = 0; n <= kMost; ++n) {
          CAPTURE(n);
          Matrix<float> y(Shape<2>{{n, rows}});
          for (Index t = 0; t < n; ++t) std::fill_n(y.row(t), rows, -1.0f);
          ops::linear(c.op, p.view, x.cview().rows(kMost - n, n), y.view());
          bool same = true;
          for (Index t = 0; t < n; ++t) {
            same = same && std::memcmp(y.row(t), want.row(kMost - n + t), static_cast<std::size_t>(rows) * 4) == 0;
          }
          CHECK(same);
        }
      });
    });
  }
}

TEST_CASE("extreme codes do not overflow: 0, 15, -128 and 127 by the largest activations") {
  for (const GgmlType type : test::kBlockTypes) {
    test::Random random(7);
    const Index cols = 512, block_bytes = info_of(type).block_bytes;
    for (const int byte : {0x00, 0xff, 0x80, 0x7f}) {
      BlockRows w(random, type, 32, cols);
      std::fill(w.bytes.begin(), w.bytes.end(), static_cast<std::byte>(byte));
      for (Index i = 0; i < static_cast<Index>(w.bytes.size()); i += block_bytes) {
        w.put_half(i, 1);
        if (type == GgmlType::kQ4_1 || type == GgmlType::kQ4_K) w.put_half(i + 2, -1);
      }
      const BlockPanels p(w);
      const Matrix<float> numbers = w.floats();
      Matrix<float> x(Shape<2>{{14, cols}});
      for (Index i = 0; i < x.size(); ++i) x.data()[i] = (i / cols) % 2 == 0 ? 1.0f : -1.0f;
      test::for_each_table_and_plain_units([&](const KernelTable& table) {
        CAPTURE(table.name);
        CAPTURE(name_of(type));
        CAPTURE(byte);
        test::SerialContext c(table);
        Matrix<float> y(Shape<2>{{14, 32}});
        ops::linear(c.op, p.view, x.cview(), y.view());
        for (Index t = 0; t < 14; ++t) {
          for (Index r = 0; r < 32; ++r) {
            double want = 0;
            for (Index k = 0; k < cols; ++k) want += static_cast<double>(numbers.row(r)[k]) * (t % 2 == 0 ? 1 : -1);
            CHECK(y.row(t)[r] == doctest::Approx(want).epsilon(1e-5));
          }
        }
      });
    }
  }
}

TEST_CASE("an expert of blocks has the same bits in every batch, with every executor") {
  test::Random random(8);
  const BlockRows w1(random, GgmlType::kQ4_K, 512, 256), w3(random, GgmlType::kQ4_K, 512, 256);
  const BlockPanels pair(w1, &w3), down(BlockRows(random, GgmlType::kQ8_0, 256, 512));
  const moe::ExpertWeights expert{pair.view, down.view, pair.second};
  const Matrix<float> x = floats(random, 30, 256);
  Matrix<float> want(Shape<2>{{30, 256}});
  test::SerialContext plain(test::reference_table());
  moe::expert_ffn(plain.op, expert, x.cview(), want.view());
  test::for_each_executor([&](Executor& executor) {
    const KernelTable table = make_table(best_isa());
    Scratch scratch;
    const OpContext op{table, executor, scratch};
    for (const Index n : {1, 2, 7, 13, 30}) {
      Matrix<float> y(Shape<2>{{n, 256}});
      moe::expert_ffn(op, expert, x.cview().rows(0, n), y.view());
      bool same = true;
      for (Index t = 0; t < n; ++t) same = same && std::equal(y.row(t), y.row(t) + 256, want.row(t));
      CHECK(same);
    }
  });
}
