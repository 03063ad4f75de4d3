#include "mixtral/simd/attention_rows.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "support/budgets.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"
#include "support/tables.hpp"

using namespace mixtral;
using simd::kKvBlock;
using simd::kKvChunk;
using simd::kv_stride;
using test::Guarded;

namespace {

// The numbers that a cache of this type keeps of x [n, head_dim].
Matrix<float> as_kept(const Matrix<float>& x, DType dtype) {
  Matrix<float> out(x.shape());
  for (Index t = 0; t < x.dim(0); ++t) {
    float most = 0;
    for (Index d = 0; d < x.dim(1); ++d) most = std::max(most, std::abs(x.row(t)[d]));
    for (Index d = 0; d < x.dim(1); ++d) {
      const float value = x.row(t)[d];
      switch (dtype) {
        case DType::kBF16: out.row(t)[d] = to_float(to_bf16(value)); break;
        case DType::kI8: out.row(t)[d] = most / 127 * std::nearbyint(value * (127 / most)); break;
        default: out.row(t)[d] = value;
      }
    }
  }
  return out;
}

// One key/value head: blocks end where their memory does; positions that are not written hold NaN, or a huge scale.
struct Case {
  Case(DType dtype, Index n_group, Index n_head_dim, Index n_positions, std::uint64_t seed, double scale = 1)
      : layout{dtype, n_head_dim}, group(n_group), head_dim(n_head_dim), positions(n_positions) {
    test::Random random(seed);
    q = random.matrix<float>(positions, group * head_dim, -scale, scale);
    k = random.matrix<float>(positions, head_dim);
    v = random.matrix<float>(positions, head_dim);
    for (Index b = 0; b * kKvBlock < positions; ++b) {
      auto block = std::make_unique<Guarded<std::byte>>(static_cast<std::size_t>(layout.bytes()));
      for (std::byte& x : block->span()) x = std::byte{dtype == DType::kI8 ? std::uint8_t{0x7e} : std::uint8_t{0xff}};
      block_data.push_back(block->data());
      blocks.push_back(std::move(block));
    }
    for (Index t = 0; t < positions; ++t) write(t, k.row(t), v.row(t));
  }

  void write(Index t, const float* key, const float* value) {
    layout.write(blocks[static_cast<std::size_t>(t / kKvBlock)]->data(), t % kKvBlock, key, value);
  }

  // Tokens at [position, position + tokens).  [tokens, group * head_dim]
  Matrix<float> run(const KernelTable& table, Index position, Index tokens, Index window) const {
    const Index rows = tokens * group, stride = kv_stride(head_dim);
    const Index first = window > 0 ? std::max<Index>(0, position - window + 1) : 0, chunk = first / kKvChunk;
    const Index chunks = (position + tokens - 1) / kKvChunk + 1 - chunk;
    const auto size = [](Index n) { return static_cast<std::size_t>(n); };
    const Guarded<float> queries(q.span().subspan(size(position * group * head_dim), size(rows * head_dim)));
    const Guarded<float> sums(size(chunks * rows * stride)), work(size(simd::attention_work(rows, head_dim, stride)));
    std::vector<simd::SoftmaxState> state(size(chunks * rows));
    for (Index c = 0; c < chunks; ++c) {
      table.attention[layout.dtype]({.q = queries.data(),
                                     .q_stride = head_dim,
                                     .q_token_stride = group * head_dim,
                                     .tokens = tokens,
                                     .group = group,
                                     .head_dim = head_dim,
                                     .position = position,
                                     .window = window,
                                     .pages = block_data.data(),
                                     .scale_offset = 0,
                                     .k_offset = layout.k_offset(),
                                     .v_offset = layout.v_offset(),
                                     .v_stride = stride,
                                     .begin = (chunk + c) * kKvChunk,
                                     .end = (chunk + c + 1) * kKvChunk,
                                     .scale = 1.0f / std::sqrt(static_cast<float>(head_dim)),
                                     .work = work.data(),
                                     .out = sums.data() + c * rows * stride,
                                     .state = state.data() + c * rows});
    }
    Matrix<float> out(Shape<2>{{tokens, group * head_dim}});
    const Guarded<float> place(size(rows * head_dim));
    table.combine_attention({.sums = sums.data(),
                             .state = state.data(),
                             .chunks = chunks,
                             .rows = rows,
                             .v_stride = stride,
                             .group = group,
                             .head_dim = head_dim,
                             .out = place.data(),
                             .out_token_stride = group * head_dim});
    std::copy_n(place.data(), size(rows * head_dim), out.row(0));
    return out;
  }

  Matrix<double> oracle(Index position, Index tokens, Index window) const {
    const Matrix<float> keys = as_kept(k, layout.dtype), values = as_kept(v, layout.dtype);
    Matrix<double> out(Shape<2>{{tokens, group * head_dim}});
    for (Index t = 0; t < tokens; ++t) {
      const Index end = position + t + 1, first = window > 0 ? std::max<Index>(0, end - window) : 0;
      for (Index g = 0; g < group; ++g) {
        Matrix<double> p(Shape<2>{{1, end - first}});
        const float* query = q.row(position + t) + g * head_dim;
        double* sum = out.row(t) + g * head_dim;
        for (Index j = first; j < end; ++j) {
          double dot = 0;
          for (Index d = 0; d < head_dim; ++d) {
            dot += static_cast<double>(query[d]) * static_cast<double>(keys.row(j)[d]);
          }
          p.row(0)[j - first] = dot / std::sqrt(static_cast<double>(head_dim));
        }
        reference::softmax(p.view());
        for (Index j = first; j < end; ++j) {
          for (Index d = 0; d < head_dim; ++d) sum[d] += p.row(0)[j - first] * static_cast<double>(values.row(j)[d]);
        }
      }
    }
    return out;
  }

  KvBlockLayout layout;
  Index group, head_dim, positions;
  Matrix<float> q, k, v;
  std::vector<std::unique_ptr<Guarded<std::byte>>> blocks;
  std::vector<const std::byte*> block_data;
};

void check_case(const Case& c, Index position, Index tokens, Index window,
                const test::Budget& budget = test::kDotProduct) {
  CAPTURE(name_of(c.layout.dtype));
  CAPTURE(c.group);
  CAPTURE(c.head_dim);
  CAPTURE(position);
  CAPTURE(tokens);
  CAPTURE(window);
  const auto want = c.oracle(position, tokens, window);
  const auto bits = c.run(test::reference_table(), position, tokens, window);
  test::for_each_table([&](const KernelTable& t) { CHECK(test::same_bits(c.run(t, position, tokens, window), bits)); });
  test::for_each_table_and_native(
      [&](const KernelTable& t) { test::check_close(c.run(t, position, tokens, window), want, budget); });
}

}  // namespace

TEST_CASE("attention of one token agrees with the double oracle for odd heads, all tables bit for bit") {
  for (const DType dtype : kKvTypes) {
    for (const Index head_dim : {1, 2, 6, 10, 15, 16, 17, 32, 64, 65, 80, 128}) {
      for (const Index group : {1, 2, 3, 4, 5, 8, 9}) check_case(Case(dtype, group, head_dim, 70, 31), 69, 1, 0);
    }
  }
}

TEST_CASE("attention of one token agrees for any range of positions, within and across pages") {
  for (const DType dtype : kKvTypes) {
    const Case c(dtype, 5, 24, 130, 32);
    for (const Index end : {1, 2, 16, 31, 32, 33, 63, 64, 65, 96, 130}) {
      for (const Index window : {0, 1, 2, 15, 31, 32, 33, 34, 64, 129}) check_case(c, end - 1, 1, window);
    }
  }
}

TEST_CASE("attention of neighbouring tokens agrees, with and without a window") {
  for (const DType dtype : kKvTypes) {
    const Case c(dtype, 3, 18, 100, 36);
    for (const Index tokens : {2, 3, 5, 16, 33}) {
      for (const Index position : {0, 1, 20, 31, 32, 60}) {
        for (const Index window : {0, 1, 7, 32, 40}) check_case(c, position, tokens, window);
      }
    }
  }
}

TEST_CASE("attention over several chunks agrees, and sees no chunk before its window") {
  for (const DType dtype : kKvTypes) {
    const Case c(dtype, 2, 6, 3 * kKvChunk, 37);
    for (const Index position : {kKvChunk - 2, kKvChunk, 2 * kKvChunk + 5, 3 * kKvChunk - 4}) {
      for (const Index window : {Index{0}, Index{3}, kKvChunk, kKvChunk + 1}) check_case(c, position, 4, window);
    }
  }
}

TEST_CASE("attention survives scores far apart: the largest wins") {
  // Scores of some hundreds: their absolute rounding error is 1e-5, which exp turns into a relative one.
  const test::Budget large_scores{"scores of several hundred", 2e-4, 2e-4};
  for (const DType dtype : kKvTypes) {
    const Case c(dtype, 4, 16, 100, 33, /*scale=*/300);
    for (const Index end : {1, 40, 100}) check_case(c, end - 1, 1, 0, large_scores);
  }
}

TEST_CASE("attention over equal keys is the mean of the values, over one position that value") {
  Case c(DType::kF32, 3, 16, 40, 34);
  const std::vector<float> key(16, 0.25f);
  for (Index t = 0; t < 40; ++t) c.write(t, key.data(), c.v.row(t));
  test::for_each_table_and_native([&](const KernelTable& t) {
    const auto mean = c.run(t, 39, 1, 0), one = c.run(t, 37, 1, 1);
    for (Index d = 0; d < 16; ++d) {
      double sum = 0;
      for (Index j = 0; j < 40; ++j) sum += static_cast<double>(c.v.row(j)[d]);
      CHECK(mean.row(0)[32 + d] == doctest::Approx(sum / 40).epsilon(1e-5));
      CHECK(one.row(0)[16 + d] == c.v.row(37)[d]);
    }
  });
}

TEST_CASE("a row's bits depend neither on the heads that share its keys nor on its neighbours") {
  for (const DType dtype : kKvTypes) {
    const Case c(dtype, 9, 40, 2 * kKvChunk + 10, 35);
    for (const Index window : {Index{0}, Index{70}, kKvChunk + 30}) {
      test::for_each_table_and_native([&](const KernelTable& t) {
        const Index position = 2 * kKvChunk - 6, tokens = 13;
        const auto together = c.run(t, position, tokens, window);
        for (Index i = 0; i < tokens; ++i) {
          CHECK(test::same_bits(c.run(t, position + i, 1, window).span(), together.view().row_span(i)));
        }
        Case alone(dtype, 1, 40, c.positions, 35);
        for (Index p = 0; p < c.positions; ++p) alone.write(p, c.k.row(p), c.v.row(p));
        for (Index g = 0; g < c.group; ++g) {
          std::copy_n(c.q.row(position) + g * 40, 40, alone.q.row(position));
          CHECK(test::same_bits(alone.run(t, position, 1, window).span(),
                                together.view().row_span(0).subspan(static_cast<std::size_t>(g * 40), 40)));
        }
      });
    }
  }
}

TEST_CASE("a later token's infinities and NaNs do not reach an earlier one") {
  for (const DType dtype : kKvTypes) {
    Case c(dtype, 4, 16, 40, 38);
    const auto before = c.run(test::reference_table(), 30, 6, 0);
    for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      const std::vector<float> row(16, bad);
      c.write(33, row.data(), row.data());
      test::for_each_table_and_native([&](const KernelTable& t) {
        const auto out = c.run(t, 30, 6, 0);
        for (Index i = 0; i < 3; ++i) {
          for (Index d = 0; d < 64; ++d) CHECK(out.row(i)[d] == doctest::Approx(before.row(i)[d]).epsilon(1e-5));
        }
        CHECK(std::isnan(out.row(3)[0]));
      });
    }
  }
}
