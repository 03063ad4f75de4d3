#include "mixtral/ops/quantized.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "mixtral/ops/linear.hpp"
#include "mixtral/ops/pack.hpp"
#include "support/byte_products.hpp"
#include "support/compare.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

namespace mixtral {
namespace {

Matrix<float> floats(test::Random& random, Index rows, Index cols) {
  return random.matrix<float>(rows, cols, -1.0, 1.0);
}

struct PackedWeights {
  PackedWeights(const OpContext& op, const MatrixView& w, DType dtype)
      : bytes(Shape<1>{{ops::packed_bytes(dtype, w.rows, w.cols)}}),
        view(ops::pack(op, w, dtype, {}, reinterpret_cast<std::byte*>(bytes.data()))) {}
  Tensor<std::uint8_t, 1> bytes;
  MatrixView view;
};

}  // namespace

TEST_CASE("activations become the nearest of 255 numbers, zeros behind the last") {
  test::for_each_table_and_native([](const KernelTable& table) {
    test::Random random(3);
    for (const Index n : {1, 15, 16, 33, 511, 512}) {
      const Matrix<float> x = floats(random, 1, n);
      std::int8_t q[kSlabCols];
      simd::SlabMeta meta;
      table.quantize_slab(x.data(), n, q, &meta);
      std::int32_t sum = 0;
      float most = 0;
      for (Index k = 0; k < kSlabCols; ++k) {
        if (k < n) CHECK(std::abs(x.data()[k] - meta.scale * static_cast<float>(q[k])) <= 0.5001f * meta.scale);
        if (k >= n) CHECK(q[k] == 0);
        sum += q[k];
        if (k < n) most = std::max(most, std::abs(x.data()[k]));
      }
      CHECK(meta.scale == most / 127.0f);
      CHECK(meta.sum == sum);
      for (Index b = 0; b < kSlabBlocks; ++b) {
        std::int32_t block = 0;
        for (Index k = 0; k < kBlockCols; ++k) block += q[b * kBlockCols + k];
        CHECK(meta.block_sums[b] == block);
      }
    }
  });
}

TEST_CASE("zeros and tiny activations are zeros, what is not finite shows in every output") {
  test::for_each_context([](const OpContext& op) {
    test::Random random(4);
    const Matrix<float> w = floats(random, 40, 600);
    const PackedWeights p(op, w.view(), DType::kP4);
    Matrix<float> x(Shape<2>{{4, 600}}), y(Shape<2>{{4, 40}});
    for (Index k = 0; k < 600; ++k) x.row(1)[k] = 1e-35f;
    x.row(2)[599] = std::numeric_limits<float>::infinity();
    x.row(3)[0] = std::numeric_limits<float>::quiet_NaN();
    ops::linear(op, p.view, x.cview(), y.view());
    for (Index r = 0; r < 40; ++r) {
      CHECK(y.row(0)[r] == 0);
      CHECK(y.row(1)[r] == 0);
      CHECK(std::isnan(y.row(2)[r]));
      CHECK(std::isnan(y.row(3)[r]));
    }
  });
}

TEST_CASE("a packed product is what its numbers say, in double") {
  test::Random random(5);
  for (const DType dtype : {DType::kP4, DType::kP8}) {
    for (const Index cols : {1, 33, 64, 512, 600, 1100}) {
      for (const Index rows : {1, 31, 32, 33, 100}) {
        CAPTURE(rows);
        CAPTURE(cols);
        test::SerialContext c;
        const Matrix<float> w = floats(random, rows, cols), x = floats(random, 3, cols);
        const PackedWeights p(c.op, w.view(), dtype);
        Matrix<float> numbers(Shape<2>{{rows, cols}}), y(Shape<2>{{3, rows}});
        ops::unpack(p.view, numbers.view());
        ops::linear(c.op, p.view, x.cview(), y.view());
        for (Index t = 0; t < 3; ++t) {
          for (Index r = 0; r < rows; ++r) {
            const auto [want, size] = test::product_of_bytes(c.table, numbers.row(r), x.row(t), cols);
            CHECK(std::abs(y.row(t)[r] - want) <= 1e-6 * size);  // a few roundings of float32
          }
        }
      }
    }
  }
}

TEST_CASE("every table gives the bits of the plain one, for 0 to 40 tokens, in every batch") {
  test::Random random(6);
  constexpr Index kMost = 40;
  for (const DType dtype : {DType::kP4, DType::kP8}) {
    for (const auto& [rows, cols] : {std::pair<Index, Index>{70, 1100}, {32, 512}, {200, 64}, {33, 40}, {40, 0}}) {
      test::SerialContext plain(test::reference_table());
      const Matrix<float> w = floats(random, rows, cols), x = floats(random, kMost, cols);
      const PackedWeights p(plain.op, w.view(), dtype);
      Matrix<float> want(Shape<2>{{kMost, rows}});
      ops::linear(plain.op, p.view, x.cview(), want.view());
      test::for_each_table_and_plain_units([&](const KernelTable& table) {
        test::SerialContext c(table);
        for (Index n = 0; n <= kMost; ++n) {
          CAPTURE(n);
          Matrix<float> y(Shape<2>{{n, rows}});
          for (Index t = 0; t < n; ++t) std::fill_n(y.row(t), rows, -1.0f);
          ops::linear(c.op, p.view, x.cview().rows(kMost - n, n), y.view());
          bool same = true;
          for (Index t = 0; t < n; ++t) {
            same = same && std::equal(y.row(t), y.row(t) + rows, want.row(kMost - n + t));
          }
          CHECK(same);
        }
      });
    }
  }
}

TEST_CASE("extreme numbers do not overflow: the largest bytes on both sides") {
  test::for_each_table_and_plain_units([](const KernelTable& table) {
    test::SerialContext c(table);
    Matrix<float> w(Shape<2>{{32, 512}}), x(Shape<2>{{9, 512}});
    for (Index i = 0; i < w.size(); ++i) w.data()[i] = (i / 512) % 2 == 0 ? 1.0f : -1.0f;
    for (Index i = 0; i < x.size(); ++i) x.data()[i] = (i / 512) % 2 == 0 ? 1.0f : -1.0f;
    for (const DType dtype : {DType::kP4, DType::kP8}) {
      const PackedWeights p(c.op, w.view(), dtype);
      Matrix<float> y(Shape<2>{{9, 32}});
      ops::linear(c.op, p.view, x.cview(), y.view());
      for (Index t = 0; t < 9; ++t) {
        for (Index r = 0; r < 32; ++r)
          CHECK(y.row(t)[r] == doctest::Approx((t + r) % 2 == 0 ? 512 : -512).epsilon(0.01));
      }
    }
  });
}

TEST_CASE("packed and dense products of one input share a section") {
  test::Random random(8);
  test::for_each_executor([&](Executor& executor) {
    const KernelTable table = make_table(best_isa());
    Scratch scratch;
    const OpContext op{table, executor, scratch};
    const Matrix<float> w = floats(random, 700, 96), x = floats(random, 5, 96);
    const PackedWeights p(op, w.view(), DType::kP8);
    Matrix<float> both[2] = {Matrix<float>(Shape<2>{{5, 700}}), Matrix<float>(Shape<2>{{5, 700}})};
    Matrix<float> alone(Shape<2>{{5, 700}});
    const ops::LinearJob jobs[] = {{w.view(), both[0].view()}, {p.view, both[1].view()}};
    ops::linear(op, jobs, x.cview());
    ops::linear(op, w.view(), x.cview(), alone.view());
    CHECK(test::same_bits(both[0], alone));
    ops::linear(op, p.view, x.cview(), alone.view());
    CHECK(test::same_bits(both[1], alone));
  });
}

TEST_CASE("one half of a pair is no matrix to multiply by") {
  test::SerialContext c;
  test::Random random(9);
  const Matrix<float> w = floats(random, 16, 64);
  Tensor<std::uint8_t, 1> bytes(Shape<1>{{ops::packed_pair_bytes(DType::kP4, 16, 64)}});
  const auto pair =
      ops::pack_pair(c.op, w.view(), w.view(), DType::kP4, {}, reinterpret_cast<std::byte*>(bytes.data()));
  Matrix<float> x(Shape<2>{{1, 64}}), y(Shape<2>{{1, 16}});
  test::error_of([&] { ops::linear(c.op, pair.first, x.cview(), y.view()); });
}

}  // namespace mixtral
