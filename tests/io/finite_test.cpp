#include "io/finite.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "mixtral/core/error.hpp"
#include "support/block_weights.hpp"
#include "support/error_of.hpp"
#include "support/models.hpp"

namespace mixtral {
namespace {

// rows x cols numbers of any dtype behind one byte, so that none is aligned.
class Bytes {
 public:
  Bytes(DType dtype, Index rows, Index cols)
      : bytes_(static_cast<std::size_t>(1 + rows * cols * size_of(dtype))),
        view_(dtype, rows, cols, bytes_.data() + 1) {}

  void set(Index row, Index col, std::uint32_t bits) {
    std::memcpy(bytes_.data() + 1 + row * view_.row_bytes + col * size_of(view_.dtype), &bits,
                static_cast<std::size_t>(size_of(view_.dtype)));
  }
  void fill(std::uint32_t bits) {
    for (Index r = 0; r < view_.rows; ++r) {
      for (Index c = 0; c < view_.cols; ++c) set(r, c, bits);
    }
  }
  const MatrixView& view() const { return view_; }

 private:
  std::vector<std::byte> bytes_;
  MatrixView view_;
};

}  // namespace

TEST_CASE("every pattern of bits that is no finite number is counted, and only those") {
  const struct {
    DType dtype;
    std::uint32_t largest, infinity, minus_infinity, quiet, signalling;
  } kinds[] = {{DType::kF32, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xff800001},
               {DType::kBF16, 0x7f7f, 0x7f80, 0xff80, 0x7fc0, 0xff81},
               {DType::kF16, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0xfc01}};
  for (const auto& k : kinds) {
    CAPTURE(name_of(k.dtype));
    for (const Index cols : {1, 15, 16, 17, 4095, 4096, 4097, 9000}) {
      CAPTURE(cols);
      Bytes w(k.dtype, 3, cols);
      w.fill(k.largest);
      CHECK(find_non_finite(w.view(), 0, 3).count == 0);
      w.set(2, cols - 1, k.signalling);
      w.set(1, cols / 2, k.minus_infinity);
      NonFinite found = find_non_finite(w.view(), 0, 3);
      CHECK(found.count == 2);
      CHECK(found.row == 1);
      CHECK(found.col == cols / 2);
      CHECK(found.value == -std::numeric_limits<float>::infinity());
      CHECK(find_non_finite(w.view(), 0, 1).count == 0);
      found = find_non_finite(w.view(), 2, 3);
      CHECK(found.count == 1);
      CHECK(found.row == 2);
      CHECK(found.col == cols - 1);
      CHECK(std::isnan(found.value));
      for (const std::uint32_t bits : {k.infinity, k.quiet}) {
        w.fill(bits);
        CHECK(find_non_finite(w.view(), 0, 3).count == 3 * cols);
      }
    }
  }
}

TEST_CASE("of packed weights the scales of their own rows are looked at") {
  test::Random random(5);
  test::Store store;
  const KernelTable table = test::reference_table();
  SerialExecutor serial;
  Scratch scratch;
  const OpContext op{table, serial, scratch};
  for (const DType dtype : {DType::kP4, DType::kP8}) {
    const Index rows = 37, cols = 600;  // two panels, two slabs; as a pair three panels
    const MatrixView dense = store.add(random, DType::kF32, rows, cols);
    std::vector<std::byte> whole(static_cast<std::size_t>(ops::packed_bytes(dtype, rows, cols)));
    std::vector<std::byte> pair(static_cast<std::size_t>(ops::packed_pair_bytes(dtype, rows, cols)));
    const MatrixView w = ops::pack(op, dense, dtype, {}, whole.data());
    const auto [first, second] = ops::pack_pair(op, dense, dense, dtype, {}, pair.data());
    for (const MatrixView& view : {w, first, second}) CHECK(find_non_finite(view, 0, rows).count == 0);

    const float nan = std::numeric_limits<float>::quiet_NaN();
    const PackedLayout layout = w.layout();
    std::memcpy(whole.data() + layout.panel_bytes() + layout.slab_offset(1) + 4 * sizeof nan, &nan, sizeof nan);
    const NonFinite found = find_non_finite(w, 0, rows);
    CHECK(found.count == 1);
    CHECK(found.row == 36);
    CHECK(found.col == 512);
    std::memcpy(whole.data() + layout.panel_bytes() + 5 * sizeof nan, &nan, sizeof nan);  // of a row that pads
    CHECK(find_non_finite(w, 0, rows).count == 1);

    std::memcpy(pair.data() + layout.panel_bytes() + (16 + 3) * sizeof nan, &nan, sizeof nan);
    CHECK(find_non_finite(first, 0, rows).count == 0);
    CHECK(find_non_finite(second, 0, rows).count == 1);
    CHECK(find_non_finite(second, 0, rows).row == 19);
    CHECK(find_non_finite(second, 0, 16).count == 0);
  }
}

TEST_CASE("of weights with a scale for each block all scales are looked at, and their minima") {
  test::Random random(6);
  for (const GgmlType type : test::kBlockTypes) {
    CAPTURE(name_of(type));
    const GgmlTypeInfo& info = info_of(type);
    const Index rows = 37, blocks = 768 / info.block_weights;
    const bool minima = type == GgmlType::kQ4_1 || type == GgmlType::kQ4_K;
    for (const Index block : {Index{0}, blocks - 1}) {
      for (Index half = 0; half <= minima; ++half) {
        test::BlockRows w(random, type, rows, 768);
        CHECK(find_non_finite(test::BlockPanels(w).view, 0, rows).count == 0);
        w.put_half((35 * blocks + block) * info.block_bytes + 2 * half, std::numeric_limits<double>::infinity());
        const test::BlockRows sound(random, type, rows, 768);
        const test::BlockPanels alone(w), pair(sound, &w);
        for (const MatrixView& view : {alone.view, pair.second}) {
          const NonFinite found = find_non_finite(view, 0, rows);
          CHECK(found.count == 1);
          CHECK(found.row == 35);
          CHECK(found.col == block * info.block_weights);
          CHECK(std::isinf(found.value));
        }
        CHECK(find_non_finite(pair.view, 0, rows).count == 0);
        CHECK(find_non_finite(alone.view, 0, 35).count == 0);
      }
    }
  }
}

TEST_CASE("routers and norms must be finite, other weights are not looked at") {
  Bytes w(DType::kBF16, 8, 4);
  w.set(5, 2, 0x7fc0);
  CHECK_NOTHROW(require_finite_routing({TensorKind::kW1, 3, 1}, w.view(), "file"));
  const Error error = test::error_of([&] { require_finite_routing({TensorKind::kRouter, 3}, w.view(), "file"); });
  CHECK(error.code() == ErrorCode::kBadFormat);
  CHECK(test::names(error, "file: layers.3.gate: expert 5, element 2 is nan, expected finite numbers"));
}

}  // namespace mixtral
