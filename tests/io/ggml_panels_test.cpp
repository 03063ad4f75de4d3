#include "io/ggml_panels.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "support/block_weights.hpp"
#include "support/compare.hpp"

using namespace mixtral;
using test::BlockPanels;
using test::BlockRows;

namespace {

Matrix<float> unpacked(const MatrixView& w) {
  Matrix<float> out(Shape<2>{{w.rows, w.cols}});
  ops::unpack(w, out.view());
  return out;
}

}  // namespace

TEST_CASE("panels have the weights of the blocks, to the bit") {
  test::Random random(1);
  for (const GgmlType type : test::kBlockTypes) {
    CAPTURE(name_of(type));
    const Index block = info_of(type).block_weights;
    for (const Index blocks : {1, 2, 3, 16, 17, 35}) {
      for (const Index rows : {1, 16, 31, 32, 33, 70}) {
        CAPTURE(blocks);
        CAPTURE(rows);
        const BlockRows w(random, type, rows, blocks * block), other(random, type, rows, blocks * block);
        const BlockPanels alone(w), pair(w, &other);
        CHECK(alone.finite);
        CHECK(test::same_bits(unpacked(alone.view), w.floats()));
        CHECK(test::same_bits(unpacked(pair.view), w.floats()));
        CHECK(test::same_bits(unpacked(pair.second), other.floats()));
      }
    }
  }
}

TEST_CASE("only the types that keep their weights have panels of their own") {
  for (const GgmlTypeInfo& info : kGgmlTypes) {
    const bool kept = std::ranges::find(test::kBlockTypes, info.type) != std::end(test::kBlockTypes);
    CHECK(exact_type(info.type).has_value() == kept);
    if (kept) CHECK(name_of(*exact_type(info.type)) == info.name);
  }
}

TEST_CASE("a row takes no more bytes than its blocks, plus 3 percent") {
  for (const GgmlType type : test::kBlockTypes) {
    const Index cols = 14336, blocks = cols / info_of(type).block_weights * info_of(type).block_bytes;
    const double ratio = static_cast<double>(PackedLayout{*exact_type(type), cols}.panel_bytes()) /
                         static_cast<double>(kPanelRows * blocks);
    CAPTURE(name_of(type));
    CHECK(ratio >= 1);
    CHECK(ratio < 1.03);
  }
}

TEST_CASE("a scale or a minimum that is not finite is seen, wherever it stands") {
  test::Random random(2);
  for (const GgmlType type : test::kBlockTypes) {
    CAPTURE(name_of(type));
    const GgmlTypeInfo& info = info_of(type);
    const Index cols = 3 * info.block_weights, n_blocks = 40 * 3;
    for (const Index i : {Index{0}, n_blocks / 2, n_blocks - 1}) {
      for (const double bad : {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(),
                               std::numeric_limits<double>::quiet_NaN()}) {
        BlockRows w(random, type, 40, cols);
        CHECK(BlockPanels(w).finite);
        w.put_half(i * info.block_bytes, bad);
        CHECK(!BlockPanels(w).finite);
        if (type != GgmlType::kQ4_1 && type != GgmlType::kQ4_K) continue;
        BlockRows minimum(random, type, 40, cols);
        minimum.put_half(i * info.block_bytes + 2, bad);
        CHECK(!BlockPanels(minimum).finite);
      }
    }
  }
}
