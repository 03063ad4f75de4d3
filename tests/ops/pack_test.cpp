#include "mixtral/ops/pack.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "mixtral/ops/linear.hpp"
#include "support/compare.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/float_environments.hpp"
#include "support/random.hpp"

namespace mixtral {
namespace {

using test::error_of;

// Packed bytes with 64-byte alignment.
struct Packed {
  Tensor<std::uint8_t, 1> bytes;
  MatrixView view;
};

Packed packed(const OpContext& op, const MatrixView& w, DType dtype, std::span<const float> importance = {}) {
  Packed p{Tensor<std::uint8_t, 1>(Shape<1>{{ops::packed_bytes(dtype, w.rows, w.cols)}}), {}};
  p.view = ops::pack(op, w, dtype, importance, reinterpret_cast<std::byte*>(p.bytes.data()));
  return p;
}

Matrix<float> unpacked(const MatrixView& w) {
  Matrix<float> out(Shape<2>{{w.rows, w.cols}});
  ops::unpack(w, out.view());
  return out;
}

// sqrt(sum of squared errors / sum of squares)
double relative_rms(const Matrix<float>& want, const Matrix<float>& got) {
  double error = 0, total = 0;
  for (Index i = 0; i < want.size(); ++i) {
    const double w = want.data()[i], d = w - got.data()[i];
    error += d * d;
    total += w * w;
  }
  return std::sqrt(error / total);
}

template <class Distribution>
Matrix<float> drawn(Index rows, Index cols, Distribution&& draw) {
  std::mt19937 random(7);
  Matrix<float> w(Shape<2>{{rows, cols}});
  for (float& x : w.span()) x = draw(random);
  return w;
}

Matrix<float> gaussian(Index rows, Index cols) {
  return drawn(rows, cols,
               [normal = std::normal_distribution<float>(0, 0.02f)](auto& random) mutable { return normal(random); });
}
Matrix<float> laplace(Index rows, Index cols) {
  return drawn(rows, cols, [size = std::exponential_distribution<float>(50)](auto& random) mutable {
    return (random() & 1) != 0 ? size(random) : -size(random);
  });
}

const Index kOddCols[] = {1, 4, 31, 32, 33, 64, 65, 511, 512, 513, 600, 1100};

}  // namespace

TEST_CASE("the layouts have the sizes that are written down") {
  CHECK(PackedLayout{DType::kP4, 4096}.panel_bytes() == 8 * (128 + 8 * (64 + 1024)));
  CHECK(PackedLayout{DType::kP8, 4096}.panel_bytes() == 8 * (128 + 8 * 2048));
  CHECK(8.0 * static_cast<double>(PackedLayout{DType::kP4, 4096}.panel_bytes()) / (32 * 4096) <= 4.32);
  CHECK(8.0 * static_cast<double>(PackedLayout{DType::kP8, 4096}.panel_bytes()) / (32 * 4096) <= 8.07);
  // A last slab that is not full holds only the tiles that it needs.
  CHECK(PackedLayout{DType::kP4, 512 + 65}.panel_bytes() == PackedLayout{DType::kP4, 512}.panel_bytes() + 128 + 2 * (64 + 1024));
  CHECK(PackedLayout{DType::kP8, 1}.panel_bytes() == 128 + 2048);
  CHECK(PackedLayout{DType::kP4, 0}.panel_bytes() == 0);
}

TEST_CASE("P4 keeps Gaussian weights to 0.079 and Laplace weights to 0.094, P8 Gaussian ones to 0.0075") {
  test::SerialContext c;
  const Matrix<float> g = gaussian(512, 4096), l = laplace(512, 4096);
  const auto error = [&](const Matrix<float>& w, DType dtype) {
    return relative_rms(w, unpacked(packed(c.op, w.view(), dtype).view));
  };
  const double p4_gaussian = error(g, DType::kP4), p4_laplace = error(l, DType::kP4);
  const double p8_gaussian = error(g, DType::kP8), p8_laplace = error(l, DType::kP8);
  MESSAGE("relative RMS error: P4 ", p4_gaussian, " Gaussian, ", p4_laplace, " Laplace; P8 ", p8_gaussian, ", ",
          p8_laplace);
  CHECK(p4_gaussian <= 0.079);
  CHECK(p4_laplace <= 0.094);
  CHECK(p8_gaussian <= 0.0075);
  CHECK(p8_laplace <= 0.012);  // a scale for 512 weights follows the largest of them
}

TEST_CASE("every table packs the same bytes") {
  const Matrix<float> w = laplace(70, 1100);
  std::vector<float> importance;
  for (Index k = 0; k < 1100; ++k) importance.push_back(static_cast<float>(k % 7));
  for (const DType dtype : {DType::kP4, DType::kP8}) {
    std::vector<std::uint8_t> want;
    for (const std::span<const float> weights : {std::span<const float>{}, std::span<const float>(importance)}) {
      want.clear();
      test::for_each_table([&](const KernelTable& table) {
        test::SerialContext c(table);
        const Packed p = packed(c.op, w.view(), dtype, weights);
        const auto got = p.bytes.span();
        if (want.empty()) want.assign(got.begin(), got.end());
        CHECK(std::equal(got.begin(), got.end(), want.begin(), want.end()));
      });
    }
  }
}

TEST_CASE("every executor packs the same bytes") {
  const Matrix<float> w = gaussian(100, 600);
  test::SerialContext serial;
  const Packed want = packed(serial.op, w.view(), DType::kP4);
  test::for_each_executor([&](Executor& executor) {
    Scratch scratch;
    const Packed got = packed({serial.table, executor, scratch}, w.view(), DType::kP4);
    CHECK(std::equal(got.bytes.span().begin(), got.bytes.span().end(), want.bytes.span().begin()));
  });
}

TEST_CASE("what is packed does not depend on the host's floating-point environment") {
  const Matrix<float> w = gaussian(40, 600);
  for (const DType dtype : {DType::kP4, DType::kP8}) {
    test::check_in_every_float_environment([&] {
      test::SerialContext serial;
      const Packed p = packed(serial.op, w.view(), dtype);
      const Matrix<float> back = unpacked(p.view);
      return std::pair(std::vector(p.bytes.span().begin(), p.bytes.span().end()),
                       std::vector(back.span().begin(), back.span().end()));
    });
  }
}

TEST_CASE("numbers that P8 can hold come back exactly, those of P4 with an eighth of the error of any others") {
  // P4: sixteen steps of one size; P8: whole numbers up to 127.
  test::SerialContext c;
  for (const Index cols : kOddCols) {
    CAPTURE(cols);
    Matrix<float> four(Shape<2>{{33, cols}}), eight(Shape<2>{{33, cols}});
    for (Index i = 0; i < four.size(); ++i) {
      four.data()[i] = 0.25f * static_cast<float>(i % 16 - 8);
      eight.data()[i] = 0.5f * static_cast<float>(i * 37 % 255 - 127);
    }
    for (Index r = 0; r < 33; ++r) {
      for (Index k = 0; k < cols; k += kSlabCols) eight.row(r)[k] = -63.5f;
    }
    CHECK(test::same_bits(unpacked(packed(c.op, eight.view(), DType::kP8).view), eight));
    if (cols >= 32) CHECK(relative_rms(four, unpacked(packed(c.op, four.view(), DType::kP4).view)) <= 0.01);
  }
}

TEST_CASE("zeros, tiny numbers and one large weight are kept") {
  test::SerialContext c;
  Matrix<float> w(Shape<2>{{32, 512}});
  w.row(1)[7] = 3.0f;
  for (Index k = 0; k < 512; ++k) w.row(2)[k] = 1e-38f;
  for (Index k = 0; k < 512; ++k) w.row(3)[k] = 5.0f;  // all of one sign
  for (Index k = 0; k < 512; ++k) w.row(4)[k] = -5.0f;
  for (const DType dtype : {DType::kP4, DType::kP8}) {
    const Matrix<float> got = unpacked(packed(c.op, w.view(), dtype).view);
    for (Index k = 0; k < 512; ++k) {
      CHECK(got.row(0)[k] == 0);
      CHECK(std::abs(got.row(1)[k] - w.row(1)[k]) <= 0.05f);
      CHECK(got.row(2)[k] == 0);
      CHECK(got.row(3)[k] == doctest::Approx(5).epsilon(0.01));
      CHECK(got.row(4)[k] == doctest::Approx(-5).epsilon(0.01));
    }
  }
}

TEST_CASE("products of multiplier and nibble stay within a byte") {
  test::SerialContext c;
  const Matrix<float> w = laplace(64, 1024);
  const Packed p = packed(c.op, w.view(), DType::kP4);
  std::int16_t numbers[kPanelRows * kSlabCols];
  Index widest = 0;
  for (Index panel = 0; panel < 2; ++panel) {
    for (Index s = 0; s < 2; ++s) {
      simd::detail::unpack_slab<simd::Scalar, DType::kP4>(p.view.row(32 * panel) + p.view.layout().slab_offset(s), 8, numbers);
      for (const std::int16_t n : numbers) widest = std::max<Index>(widest, std::abs(n));
    }
  }
  CHECK(widest > 60);
  CHECK(widest <= 127);
}

TEST_CASE("importance moves the error to where it counts less") {
  test::SerialContext c;
  const Matrix<float> w = gaussian(64, 1024);
  std::vector<float> importance(1024, 0.01f);
  for (std::size_t k = 0; k < 1024; k += 4) importance[k] = 1;
  const auto important_error = [&](const Matrix<float>& got) {
    double sum = 0;
    for (Index r = 0; r < 64; ++r) {
      for (Index k = 0; k < 1024; k += 4) sum += std::pow(w.row(r)[k] - got.row(r)[k], 2);
    }
    return sum;
  };
  const double plain = important_error(unpacked(packed(c.op, w.view(), DType::kP4).view));
  const double weighted = important_error(unpacked(packed(c.op, w.view(), DType::kP4, importance).view));
  CHECK(weighted < 0.9 * plain);
}

TEST_CASE("a pair holds the same numbers as its two matrices") {
  test::SerialContext c;
  for (const DType dtype : {DType::kP4, DType::kP8}) {
    const Matrix<float> first = gaussian(40, 600), second = laplace(40, 600);
    Tensor<std::uint8_t, 1> bytes(Shape<1>{{ops::packed_pair_bytes(dtype, 40, 600)}});
    const ops::PackedPair pair =
        ops::pack_pair(c.op, first.view(), second.view(), dtype, {}, reinterpret_cast<std::byte*>(bytes.data()));
    CHECK(test::same_bits(unpacked(pair.first), unpacked(packed(c.op, first.view(), dtype).view)));
    CHECK(test::same_bits(unpacked(pair.second), unpacked(packed(c.op, second.view(), dtype).view)));
  }
}

TEST_CASE("what cannot be packed is refused") {
  test::SerialContext c;
  Matrix<float> w = gaussian(8, 40);
  std::vector<std::byte> out(1 << 16);
  const std::vector<float> importance(39);
  error_of([&] { ops::pack(c.op, w.view(), DType::kBF16, {}, out.data()); });
  error_of([&] { ops::pack(c.op, w.view(), DType::kP4, importance, out.data()); });
  error_of([&] { ops::unpack(w.view(), w.view()); });
  Matrix<float> other = gaussian(7, 40);
  error_of([&] { ops::pack_pair(c.op, w.view(), other.view(), DType::kP4, {}, out.data()); });
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    w.row(7)[39] = bad;
    for (const DType dtype : {DType::kP4, DType::kP8}) {
      const Error error = error_of([&] { ops::pack(c.op, w.view(), dtype, {}, out.data()); });
      CHECK(error.code() == ErrorCode::kBadFormat);
    }
  }
}

}  // namespace mixtral
