#include "mixtral/simd/linear_rows.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <vector>

#include "mixtral/core/dtype.hpp"
#include "support/budgets.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"
#include "support/tables.hpp"

using namespace mixtral;
using test::Guarded;

namespace {

// Weights at an odd address, as unaligned files have them; x and y in the middle of wider matrices. The last
// row of each ends where its memory does.
template <class W>
struct Case {
  Case(Index n_rows, Index n_cols, Index n_tokens, std::uint64_t seed)
      : rows(n_rows),
        cols(n_cols),
        tokens(n_tokens),
        x_stride(n_cols + 3),
        bytes(static_cast<std::size_t>(n_rows * row_bytes())),
        x_memory(static_cast<std::size_t>(n_tokens > 0 ? n_tokens * x_stride - 3 : 0)) {
    test::Random random(seed);
    w = random.matrix<W>(rows, cols);
    x = random.matrix<float>(tokens, cols);
    for (Index r = 0; r < rows && cols > 0; ++r) {
      std::memcpy(bytes.data() + r * row_bytes() + 1, w.row(r), static_cast<std::size_t>(cols) * sizeof(W));
    }
    for (Index t = 0; t < tokens && cols > 0; ++t) {
      std::memcpy(x_memory.data() + t * x_stride, x.row(t), static_cast<std::size_t>(cols) * sizeof(float));
    }
  }

  Index row_bytes() const { return cols * static_cast<Index>(sizeof(W)) + 1; }

  // y for tokens [first, first + count) and weight rows [row, row + n), computed in one call.
  void run(const KernelTable& t, Matrix<float>& y, Index first, Index count, Index row, Index n) const {
    t.linear[dtype_of<W>::value]({.w = bytes.data() + 1 + row * row_bytes(),
                                  .w_row_bytes = row_bytes(),
                                  .x = x_memory.data() + first * x_stride,
                                  .x_stride = x_stride,
                                  .y = y.data() + first * rows + row,
                                  .y_stride = rows,
                                  .rows = n,
                                  .cols = cols,
                                  .tokens = count});
  }
  Matrix<float> run(const KernelTable& t) const {
    Matrix<float> y(Shape<2>{{tokens, rows}});
    run(t, y, 0, tokens, 0, rows);
    return y;
  }
  Matrix<double> oracle() const {
    Matrix<double> y(Shape<2>{{tokens, rows}});
    const auto wd = test::in_double(w), xd = test::in_double(x);
    reference::linear(wd.cview(), xd.cview(), y.view());
    return y;
  }

  Index rows, cols, tokens, x_stride;
  Guarded<std::byte> bytes;
  Guarded<float> x_memory;
  Matrix<W> w;
  Matrix<float> x;
};

template <class W>
void check_case(Index rows, Index cols, Index tokens) {
  CAPTURE(rows);
  CAPTURE(cols);
  CAPTURE(tokens);
  const Case<W> c(rows, cols, tokens, 21);
  const auto want = c.oracle();
  const auto bits = c.run(test::reference_table());
  test::for_each_table([&](const KernelTable& t) { CHECK(test::same_bits(c.run(t), bits)); });
  test::for_each_table_and_native([&](const KernelTable& t) { test::check_close(c.run(t), want, test::kDotProduct); });
}

}  // namespace

TYPE_TO_STRING_AS("f32 weights", float);
TYPE_TO_STRING_AS("bf16 weights", bf16);
TYPE_TO_STRING_AS("f16 weights", f16);

TEST_CASE_TEMPLATE("linear agrees with the double oracle at odd widths, all tables bit for bit", W, float, bf16, f16) {
  for (const Index cols : {0, 1, 15, 16, 17, 31, 33, 511, 512, 513, 1040}) {
    for (const Index tokens : {1, 2, 5}) check_case<W>(9, cols, tokens);
  }
}

TEST_CASE_TEMPLATE("linear agrees with the double oracle for any number of rows and tokens", W, float, bf16, f16) {
  for (const Index rows : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 17}) {
    for (const Index tokens : {0, 1, 2, 3, 4, 5, 6, 7}) check_case<W>(rows, 37, tokens);
  }
  for (const Index tokens : {47, 48, 49, 50, 97}) {
    for (const Index rows : {1, 8, 11}) check_case<W>(rows, 37, tokens);
  }
  for (const Index rows : {47, 48, 49, 50}) check_case<W>(rows, 33, 6);
}

TEST_CASE_TEMPLATE("linear: a token's bits depend neither on the other tokens nor on the rows of a call", W, float,
                   bf16, f16) {
  test::Random random(22);
  for (const Index cols : {40, 530}) {
    const Case<W> c(21, cols, 53, 23);
    test::for_each_table_and_native([&](const KernelTable& t) {
      const auto whole = c.run(t);
      for (int round = 0; round < 8; ++round) {
        Matrix<float> parts(whole.shape());
        for (Index first = 0; first < c.tokens;) {
          const Index count = std::min(c.tokens - first, random.index(1, round < 4 ? 6 : 50));
          for (Index row = 0; row < c.rows;) {
            const Index n = std::min(c.rows - row, random.index(1, 12));
            c.run(t, parts, first, count, row, n);
            row += n;
          }
          first += count;
        }
        CHECK(test::same_bits(parts, whole));
      }
    });
  }
}

TEST_CASE("linear keeps infinities and NaNs in their own rows and tokens") {
  for (const Index tokens : {1, 3, 7}) {
    Case<float> c(5, 35, tokens, 24);
    const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
    std::memcpy(c.bytes.data() + 1 + 2 * c.row_bytes() + 34 * 4, &nan, sizeof nan);
    std::memcpy(c.bytes.data() + 1 + 3 * c.row_bytes() + 4 * 4, &infinity, sizeof infinity);
    test::for_each_table_and_native([&](const KernelTable& t) {
      const auto y = c.run(t);
      for (Index token = 0; token < tokens; ++token) {
        CHECK(std::isfinite(y.row(token)[0]));
        CHECK(std::isfinite(y.row(token)[1]));
        CHECK(std::isnan(y.row(token)[2]));
        CHECK(std::isinf(y.row(token)[3]));
        CHECK(std::isfinite(y.row(token)[4]));
      }
    });
  }
}
