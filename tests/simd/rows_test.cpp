#include "mixtral/simd/rows.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "mixtral/core/dtype.hpp"
#include "support/budgets.hpp"
#include "support/guarded.hpp"
#include "support/random.hpp"
#include "support/tables.hpp"

using namespace mixtral;
using test::Guarded;
using Row = std::vector<float>;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr Index kSizes[] = {1, 2, 3, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 511, 512, 513};

TensorView<double, 2> as_row(std::vector<double>& x) { return {x.data(), Shape<2>{{1, static_cast<Index>(x.size())}}}; }
TensorView<const double, 2> as_const_row(const std::vector<double>& x) {
  return {x.data(), Shape<2>{{1, static_cast<Index>(x.size())}}};
}
std::vector<double> in_double(const Row& x) { return {x.begin(), x.end()}; }

void check(const Row& got, const std::vector<double>& want, const test::Budget& budget) {
  test::check_close(std::span<const float>(got), std::span<const double>(want), budget);
}

// Runs `op` on each table at every size: within the budget of the oracle's result, with the bits of the
// reference table, and inside fenced memory.
void check_row_op(const test::Budget& budget, const std::function<Row(const KernelTable&, const Row&, const Row&)>& op,
                  const std::function<std::vector<double>(const Row&, const Row&)>& oracle) {
  test::Random random(11);
  for (const Index n : kSizes) {
    CAPTURE(n);
    const auto a = random.values<float>(n, -4, 4), b = random.values<float>(n, -2, 2);
    const auto want = oracle(a, b);
    const Row reference = op(test::reference_table(), a, b);
    test::for_each_table([&](const KernelTable& t) { CHECK(test::same_bits(op(t, a, b), reference)); });
    test::for_each_table_and_native([&](const KernelTable& t) { check(op(t, a, b), want, budget); });
  }
}

Row to_row(std::span<const float> x) { return {x.begin(), x.end()}; }

Row softmax(const KernelTable& t, const Row& x) {
  const Guarded<float> g{std::span<const float>(x)};
  t.softmax(g.data(), static_cast<Index>(x.size()));
  return to_row(g.span());
}

Row swiglu(const KernelTable& t, const Row& gate, const Row& up) {
  const Guarded<float> g{std::span<const float>(gate)}, u{std::span<const float>(up)}, h(gate.size());
  t.swiglu(g.data(), u.data(), static_cast<Index>(gate.size()), h.data());
  return to_row(h.span());
}

Row rms_norm(const KernelTable& t, const Row& x, const Row& weight, float eps = 1e-5f) {
  const Guarded<float> g{std::span<const float>(x)}, w{std::span<const float>(weight)}, y(x.size());
  t.rms_norm(g.data(), w.data(), eps, static_cast<Index>(x.size()), y.data());
  return to_row(y.span());
}

// One head rotated by the angles of position 3.
Row rotate(const KernelTable& t, const Row& x, bool interleaved) {
  const auto half = x.size() / 2;
  const Guarded<float> g{std::span<const float>(x)}, c(half), s(half);
  for (std::size_t i = 0; i < half; ++i) {
    const double angle = 3 * std::pow(1e4, -2.0 * static_cast<double>(i) / static_cast<double>(x.size()));
    c.data()[i] = static_cast<float>(std::cos(angle));
    s.data()[i] = static_cast<float>(std::sin(angle));
  }
  (interleaved ? t.rope_interleaved : t.rope_half_split)(g.data(), c.data(), s.data(), static_cast<Index>(x.size()));
  return to_row(g.span());
}

struct Top2 {
  bool ok;
  std::int32_t ids[2] = {-1, -1};
  float weights[2] = {-1, -1};
};
Top2 top2(const KernelTable& t, const Row& logits) {
  const Guarded<float> g{std::span<const float>(logits)};
  Top2 out{};
  out.ids[0] = out.ids[1] = -1;
  out.weights[0] = out.weights[1] = -1;
  out.ok = t.top2_of_8(g.data(), out.ids, out.weights);
  return out;
}

}  // namespace

TEST_CASE("rms_norm agrees with the double oracle, all tables bit for bit") {
  check_row_op(
      test::kFewRoundings, [](const KernelTable& t, const Row& x, const Row& w) { return rms_norm(t, x, w); },
      [](const Row& x, const Row& w) {
        const auto xd = in_double(x), wd = in_double(w);
        std::vector<double> y(x.size());
        reference::rms_norm(as_const_row(xd), std::span<const double>(wd), 1e-5f, as_row(y));
        return y;
      });
}

TEST_CASE("rms_norm may work in place, gives zeros for zeros and touches nothing of an empty row") {
  test::for_each_table_and_native([](const KernelTable& t) {
    const Row x = {1, 2, 3, 4, 5}, w = {1, 1, 2, 1, 1};
    Row y = x;
    t.rms_norm(y.data(), w.data(), 1e-5f, 5, y.data());
    CHECK(y == rms_norm(t, x, w));
    CHECK(rms_norm(t, Row(33), Row(33, 1.0f)) == Row(33));
    CHECK(rms_norm(t, {}, {}).empty());
    CHECK(std::isnan(rms_norm(t, {1, kNan, 2}, {1, 1, 1})[0]));
  });
}

TEST_CASE("softmax agrees with the double oracle, all tables bit for bit") {
  check_row_op(
      test::kFewRoundings, [](const KernelTable& t, const Row& x, const Row&) { return softmax(t, x); },
      [](const Row& x, const Row&) {
        auto y = in_double(x);
        reference::softmax(as_row(y));
        return y;
      });
}

TEST_CASE("softmax: -infinity becomes exactly 0, huge logits do not overflow, a NaN reaches every output") {
  test::for_each_table_and_native([](const KernelTable& t) {
    for (const std::size_t n : {2u, 17u, 40u}) {
      for (std::size_t place = 0; place < n; place += 3) {
        Row x(n, 1.0f);
        x[place] = -kInfinity;
        const Row y = softmax(t, x);
        CHECK(y[place] == 0.0f);
        CHECK(y[(place + 1) % n] == doctest::Approx(1.0 / static_cast<double>(n - 1)));
        x[place] = kNan;
        for (const float v : softmax(t, x)) CHECK(std::isnan(v));
      }
    }
    CHECK(softmax(t, {3e38f, -3e38f}) == Row{1, 0});
    CHECK(softmax(t, {-3e38f}) == Row{1});
  });
}

TEST_CASE("swiglu agrees with the double oracle, all tables bit for bit") {
  check_row_op(test::kFewRoundings, swiglu, [](const Row& gate, const Row& up) {
    const auto g = in_double(gate), u = in_double(up);
    std::vector<double> h(gate.size());
    reference::swiglu(as_const_row(g), as_const_row(u), as_row(h));
    return h;
  });
}

TEST_CASE("swiglu may work in place, saturates at both ends and keeps NaN") {
  test::for_each_table_and_native([](const KernelTable& t) {
    Row g = {1, -2, 3, 0.5f}, u = {2, 2, -1, 4};
    const Row want = swiglu(t, g, u);
    Row in_gate = g, in_up = u;
    t.swiglu(in_gate.data(), u.data(), 4, in_gate.data());
    t.swiglu(g.data(), in_up.data(), 4, in_up.data());
    CHECK(in_gate == want);
    CHECK(in_up == want);
    const Row ends = swiglu(t, {1000, -1000, 0, kNan, 1}, {2, 2, 2, 2, kNan});
    CHECK(ends[0] == 2000.0f);
    CHECK(std::abs(ends[1]) < 1e-30f);
    CHECK(ends[2] == 0.0f);
    CHECK(std::isnan(ends[3]));
    CHECK(std::isnan(ends[4]));
    CHECK(swiglu(t, {}, {}).empty());
  });
}

TEST_CASE("axpy adds a * x with one rounding, all tables bit for bit") {
  const auto run = [](const KernelTable& t, const Row& x, const Row& y0) {
    const Guarded<float> x_row{std::span<const float>(x)}, y{std::span<const float>(y0)};
    t.axpy(0.7f, x_row.data(), static_cast<Index>(x.size()), y.data());
    return to_row(y.span());
  };
  check_row_op(test::kDotProduct, run, [](const Row& x, const Row& y0) {
    std::vector<double> y(y0.begin(), y0.end());
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += static_cast<double>(0.7f) * static_cast<double>(x[i]);
    return y;
  });
  test::Random random(5);
  const auto x = random.values<float>(37), y0 = random.values<float>(37);
  test::for_each_table([&](const KernelTable& t) {
    const Row y = run(t, x, y0);
    for (std::size_t i = 0; i < y.size(); ++i) CHECK(y[i] == std::fma(0.7f, x[i], y0[i]));
  });
}

TEST_CASE("rotations agree with the double oracle for both pairings, all tables bit for bit") {
  test::Random random(6);
  for (const Index head_dim : {2, 4, 6, 10, 16, 30, 32, 34, 62, 64, 80, 128, 130}) {
    for (const bool interleaved : {false, true}) {
      CAPTURE(head_dim);
      CAPTURE(interleaved);
      const auto x = random.values<float>(head_dim);
      auto want = in_double(x);
      const Index position = 3;
      reference::rope(as_row(want), {&position, 1}, {head_dim, 1e4}, interleaved);
      const Row bits = rotate(test::reference_table(), x, interleaved);
      test::for_each_table([&](const KernelTable& t) { CHECK(test::same_bits(rotate(t, x, interleaved), bits)); });
      test::for_each_table_and_native(
          [&](const KernelTable& t) { check(rotate(t, x, interleaved), want, test::kRotation); });
    }
  }
}

TEST_CASE("widening gives exactly the stored values, at any address, and stays inside its memory") {
  test::Random random(7);
  const auto check_type = [&](auto kind) {
    using T = decltype(kind);
    for (const Index n : {0, 1, 5, 15, 16, 17, 31, 33, 511, 513}) {
      const auto in = random.values<T>(n, -100, 100);
      for (const std::size_t shift : {0u, 1u, 3u}) {
        // `shift` bytes after the row make its beginning unaligned.
        const Guarded<std::byte> bytes(in.size() * sizeof(T) + shift);
        if (n > 0) std::memcpy(bytes.data(), in.data(), in.size() * sizeof(T));
        test::for_each_table_and_native([&](const KernelTable& t) {
          const Guarded<float> out(in.size());
          t.widen[dtype_of<T>::value](bytes.data(), n, out.data());
          Index wrong = 0;
          for (std::size_t i = 0; i < in.size(); ++i) wrong += out.data()[i] != to_float(in[i]);
          CHECK(wrong == 0);
        });
      }
    }
  };
  check_type(float{});
  check_type(bf16{});
  check_type(f16{});
}

TEST_CASE("widening keeps subnormals, infinities and NaNs of 16-bit floats") {
  test::for_each_table_and_native([](const KernelTable& t) {
    for (unsigned bits = 0; bits < 0x10000; bits += 16) {
      std::uint16_t in[16];
      for (unsigned l = 0; l < 16; ++l) in[l] = static_cast<std::uint16_t>(bits + l);
      float brain[16], half[16], want_brain[16], want_half[16];
      t.widen[DType::kBF16](reinterpret_cast<const std::byte*>(in), 16, brain);
      t.widen[DType::kF16](reinterpret_cast<const std::byte*>(in), 16, half);
      for (unsigned l = 0; l < 16; ++l) {
        want_brain[l] = to_float(bf16{in[l]});
        want_half[l] = to_float(f16{in[l]});
      }
      const bool same = test::same_bits(brain, want_brain) && test::same_bits(half, want_half);
      if (!same) FAIL_CHECK("wrong within 16 of ", bits);
    }
  });
}

TEST_CASE("top2_of_8 chooses as a stable sort does, with the softmax of the two") {
  test::Random random(8);
  for (int round = 0; round < 400; ++round) {
    Row logits = random.values<float>(8, -3, 3);
    // Ties, and values that can not be chosen.
    for (int i = 0; i < 3; ++i) {
      if (random.chance(0.4)) {
        logits[static_cast<std::size_t>(random.index(0, 7))] = logits[static_cast<std::size_t>(random.index(0, 7))];
      }
    }
    if (random.chance(0.2)) logits[static_cast<std::size_t>(random.index(0, 7))] = -kInfinity;
    if (random.chance(0.2)) logits[static_cast<std::size_t>(random.index(0, 7))] = kNan;

    std::int32_t best = -1, second = -1;
    for (std::int32_t e = 0; e < 8; ++e) {
      const float v = logits[static_cast<std::size_t>(e)];
      if (!(v > -kInfinity)) continue;
      if (best < 0 || v > logits[static_cast<std::size_t>(best)]) {
        second = best;
        best = e;
      } else if (second < 0 || v > logits[static_cast<std::size_t>(second)]) {
        second = e;
      }
    }
    const double ratio = std::exp(static_cast<double>(logits[static_cast<std::size_t>(second)]) -
                                  static_cast<double>(logits[static_cast<std::size_t>(best)]));
    const Top2 bits = top2(test::reference_table(), logits);
    test::for_each_table_and_native([&](const KernelTable& t) {
      const Top2 got = top2(t, logits);
      CHECK(got.ok);
      CHECK(got.ids[0] == best);
      CHECK(got.ids[1] == second);
      CHECK(got.weights[0] == doctest::Approx(1 / (1 + ratio)).epsilon(1e-6));
      CHECK(got.weights[1] == doctest::Approx(ratio / (1 + ratio)).epsilon(1e-6));
    });
    test::for_each_table([&](const KernelTable& t) { CHECK(test::same_bits(top2(t, logits).weights, bits.weights)); });
  }
}

TEST_CASE("top2_of_8 reports when fewer than two can be chosen, and writes nothing") {
  test::for_each_table_and_native([](const KernelTable& t) {
    for (const Row& logits : {Row(8, -kInfinity), Row(8, kNan), Row(8, kInfinity),
                              Row{-kInfinity, kNan, 5, kNan, -kInfinity, kInfinity, kNan, kNan}}) {
      const Top2 got = top2(t, logits);
      CHECK_FALSE(got.ok);
      CHECK(got.ids[0] == -1);
      CHECK(got.weights[1] == -1.0f);
    }
  });
}
