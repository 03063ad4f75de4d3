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
using test::Guarded;

namespace {

Index padded(Index head_dim) { return (head_dim + simd::kLanes - 1) / simd::kLanes * simd::kLanes; }

// One key/value head: pages end where their memory does; positions that are not written hold NaN.
struct Case {
  Case(Index n_group, Index n_head_dim, Index n_positions, std::uint64_t seed, double scale = 1)
      : group(n_group), head_dim(n_head_dim), positions(n_positions) {
    test::Random random(seed);
    q = random.matrix<float>(group, head_dim, -scale, scale);
    k = random.matrix<float>(positions, head_dim);
    v = random.matrix<float>(positions, head_dim);
    const Index stride = padded(head_dim);
    for (Index b = 0; b * kKvBlock < positions; ++b) {
      auto page = std::make_unique<Guarded<float>>(static_cast<std::size_t>(kKvBlock * (head_dim + stride)));
      for (float& x : page->span()) x = std::numeric_limits<float>::quiet_NaN();
      float* values = page->data() + kKvBlock * head_dim;
      for (Index t = 0; t < std::min(kKvBlock, positions - b * kKvBlock); ++t) {
        for (Index d = 0; d < stride; ++d) values[t * stride + d] = d < head_dim ? v.row(b * kKvBlock + t)[d] : 0.0f;
        for (Index d = 0; d < head_dim; ++d) page->data()[d * kKvBlock + t] = k.row(b * kKvBlock + t)[d];
      }
      page_data.push_back(page->data());
      pages.push_back(std::move(page));
    }
  }

  Matrix<float> run(const KernelTable& table, Index first, Index end) const {
    const Guarded<float> out(static_cast<std::size_t>(group * padded(head_dim)));
    const Guarded<float> queries(q.span());
    table.attention({.q = queries.data(),
                     .q_stride = head_dim,
                     .group = group,
                     .head_dim = head_dim,
                     .pages = page_data.data(),
                     .k_offset = 0,
                     .v_offset = kKvBlock * head_dim,
                     .v_stride = padded(head_dim),
                     .first = first,
                     .end = end,
                     .scale = 1.0f / std::sqrt(static_cast<float>(head_dim)),
                     .out = out.data(),
                     .out_stride = padded(head_dim)});
    Matrix<float> dense(Shape<2>{{group, head_dim}});
    for (Index g = 0; g < group; ++g) std::copy_n(out.data() + g * padded(head_dim), head_dim, dense.row(g));
    return dense;
  }

  Matrix<double> oracle(Index first, Index end) const {
    Matrix<double> out(Shape<2>{{group, head_dim}});
    for (Index g = 0; g < group; ++g) {
      Matrix<double> p(Shape<2>{{1, end - first}});
      for (Index j = first; j < end; ++j) {
        double dot = 0;
        for (Index d = 0; d < head_dim; ++d) dot += static_cast<double>(q.row(g)[d]) * static_cast<double>(k.row(j)[d]);
        p.row(0)[j - first] = dot / std::sqrt(static_cast<double>(head_dim));
      }
      reference::softmax(p.view());
      for (Index j = first; j < end; ++j) {
        for (Index d = 0; d < head_dim; ++d) out.row(g)[d] += p.row(0)[j - first] * static_cast<double>(v.row(j)[d]);
      }
    }
    return out;
  }

  Index group, head_dim, positions;
  Matrix<float> q, k, v;
  std::vector<std::unique_ptr<Guarded<float>>> pages;
  std::vector<const float*> page_data;
};

void check_case(const Case& c, Index first, Index end, const test::Budget& budget = test::kDotProduct) {
  CAPTURE(c.group);
  CAPTURE(c.head_dim);
  CAPTURE(first);
  CAPTURE(end);
  const auto want = c.oracle(first, end);
  const auto bits = c.run(test::reference_table(), first, end);
  test::for_each_table([&](const KernelTable& t) { CHECK(test::same_bits(c.run(t, first, end), bits)); });
  test::for_each_table_and_native([&](const KernelTable& t) { test::check_close(c.run(t, first, end), want, budget); });
}

}  // namespace

TEST_CASE("attention of one token agrees with the double oracle for odd heads, all tables bit for bit") {
  for (const Index head_dim : {1, 2, 6, 10, 15, 16, 17, 32, 64, 65, 80, 128}) {
    for (const Index group : {1, 2, 3, 4, 5, 8}) check_case(Case(group, head_dim, 70, 31), 0, 70);
  }
}

TEST_CASE("attention of one token agrees for any range of positions, within and across pages") {
  const Case c(5, 24, 130, 32);
  for (const Index end : {1, 2, 16, 31, 32, 33, 63, 64, 65, 96, 130}) {
    for (const Index first : {0, 1, 15, 31, 32, 33, 64, 95, 129}) {
      if (first < end) check_case(c, first, end);
    }
  }
}

TEST_CASE("attention survives scores far apart: the largest wins") {
  // Scores of some hundreds: their absolute rounding error is 1e-5, which exp turns into a relative one.
  const test::Budget large_scores{"scores of several hundred", 2e-4, 2e-4};
  const Case c(4, 16, 100, 33, /*scale=*/300);
  for (const Index end : {1, 40, 100}) check_case(c, 0, end, large_scores);
}

TEST_CASE("attention over equal keys is the mean of the values, over one position that value") {
  Case c(3, 16, 40, 34);
  for (const auto& page : c.pages) std::fill_n(page->data(), kKvBlock * c.head_dim, 0.25f);
  test::for_each_table_and_native([&](const KernelTable& t) {
    const auto mean = c.run(t, 0, 40), one = c.run(t, 37, 38);
    for (Index d = 0; d < 16; ++d) {
      double sum = 0;
      for (Index j = 0; j < 40; ++j) sum += static_cast<double>(c.v.row(j)[d]);
      CHECK(mean.row(2)[d] == doctest::Approx(sum / 40).epsilon(1e-5));
      CHECK(one.row(1)[d] == c.v.row(37)[d]);
    }
  });
}

TEST_CASE("a head's bits do not depend on how many heads share its keys") {
  const Case c(9, 40, 77, 35);
  test::for_each_table_and_native([&](const KernelTable& t) {
    const auto together = c.run(t, 3, 77);
    for (Index g = 0; g < c.group; ++g) {
      Case alone(1, 40, 77, 35);
      std::copy_n(c.q.row(g), 40, alone.q.row(0));
      for (std::size_t b = 0; b < c.pages.size(); ++b) {
        std::copy_n(c.pages[b]->data(), c.pages[b]->span().size(), alone.pages[b]->data());
      }
      CHECK(test::same_bits(alone.run(t, 3, 77).span(), together.view().row_span(g)));
    }
  });
}
