// The forms in which activations are multiplied: each type of weights wants one (ops/product.hpp).
#pragma once

#include <algorithm>
#include <span>

#include "mixtral/ops/quantized.hpp"
#include "mixtral/ops/rounded.hpp"

namespace mixtral::ops {

enum class InputForm : std::uint8_t {
  kFloats,  // float32, as they are
  kPairs,   // bf16, in the order of the table's linear_pairs (ops/rounded.hpp)
  kBytes,   // a scale for each 512 (ops/quantized.hpp)
};

// A set of forms.
class InputForms {
 public:
  InputForms() = default;
  explicit InputForms(InputForm form) noexcept { add(form); }
  void add(InputForm form) noexcept { bits_ |= 1u << static_cast<unsigned>(form); }
  bool has(InputForm form) const noexcept { return (bits_ >> static_cast<unsigned>(form) & 1) != 0; }
  bool operator==(const InputForms&) const = default;

 private:
  unsigned bits_ = 0;
};

// Rows in all the forms that somebody wants. Looks at scratch memory, and at the float32 rows.
struct ProductInput {
  TensorView<const float, 2> floats;  // [n, cols]
  RoundedRows pairs;
  QuantizedRows bytes;

  ProductInput rows(Index begin, Index count) const noexcept {
    return {floats.rows(begin, count), pairs.rows(begin), bytes.rows(begin)};
  }
};

// Columns of a row that take another form together.
inline constexpr Index kInputBlock = kSlabCols;

// Room for x in other forms than float32, uninitialised.
inline ProductInput take_input(const OpContext& ctx, TensorView<const float, 2> x, InputForms forms) {
  ProductInput out{x, {}, {}};
  if (forms.has(InputForm::kPairs)) out.pairs = take_rounded(ctx, x.dim(0), x.dim(1));
  if (forms.has(InputForm::kBytes)) out.bytes = take_quantized(ctx.scratch, x.dim(0), x.dim(1));
  return out;
}

// Columns [kInputBlock * block, ...) of row t are there in float32 and take the other forms.
inline void convert_block(const KernelTable& table, const ProductInput& in, Index block, Index t) noexcept {
  const float* row = in.floats.row(t);
  const Index begin = block * kInputBlock, cols = in.floats.dim(1);
  if (in.pairs.x != nullptr) {
    round_columns(table, row + begin, begin, std::min(kInputBlock, cols - begin), t, in.pairs);
  }
  if (in.bytes.q != nullptr) quantize_slab(table, row, cols, block, t, in.bytes);
}

// x in these forms.
inline ProductInput make_input(const OpContext& ctx, TensorView<const float, 2> x, InputForms forms) {
  ProductInput out{x, {}, {}};
  if (forms.has(InputForm::kPairs)) {
    out.pairs = round_rows(ctx, x.dim(0), x.dim(1), [&](Index t) { return x.row(t); });
  }
  if (forms.has(InputForm::kBytes)) out.bytes = quantize(ctx, x);
  return out;
}

// Row r is row from[r] of x, whose bytes are there if bytes are wanted: a row that goes to several places becomes bytes
// once.
inline ProductInput gather_input(const OpContext& ctx, const ProductInput& x, std::span<const Index> from,
                                 InputForms forms) {
  const auto n = static_cast<Index>(from.size());
  const Index cols = x.floats.dim(1);
  const auto row_of = [&](Index r) { return from[static_cast<std::size_t>(r)]; };
  const auto for_rows = [&](auto copy) {
    for_blocks(ctx, n, 32, [&](Index begin, Index end, int) {
      for (Index r = begin; r < end; ++r) copy(r);
    });
  };
  ProductInput out;
  if (forms.has(InputForm::kFloats)) {
    const auto floats = ctx.scratch.matrix<float>(n, cols);
    for_rows([&](Index r) { std::copy_n(x.floats.row(row_of(r)), cols, floats.row(r)); });
    out.floats = floats;
  }
  if (forms.has(InputForm::kPairs)) {
    out.pairs = round_rows(ctx, n, cols, [&](Index r) { return x.floats.row(row_of(r)); });
  }
  if (forms.has(InputForm::kBytes)) {
    out.bytes = take_quantized(ctx.scratch, n, cols);
    for_rows([&](Index r) { copy_row(x.bytes, row_of(r), cols, r, out.bytes); });
  }
  return out;
}

}  // namespace mixtral::ops
