// A kernel table made of the row primitives of one architecture.
#pragma once

#include "mixtral/ops/kernel_table.hpp"
#include "mixtral/simd/rows.hpp"

namespace mixtral {

// The plain products with packed weights. Fast ones are compiled, in src/kernels.
template <class Arch>
void fill_plain_packed(KernelTable& t) noexcept {
  t.packed_linear[DType::kP4] = simd::packed_linear<Arch, DType::kP4>;
  t.packed_linear[DType::kP8] = simd::packed_linear<Arch, DType::kP8>;
  t.packed_linear[DType::kQ8_0] = simd::packed_linear<Arch, DType::kQ8_0>;
  t.packed_linear[DType::kQ4_0] = simd::packed_linear<Arch, DType::kQ4_0>;
  t.packed_linear[DType::kQ4_1] = simd::packed_linear<Arch, DType::kQ4_1>;
  t.packed_linear[DType::kQ4_K] = simd::packed_linear<Arch, DType::kQ4_K>;
}

// Sets every other entry of the table to the row primitives of `Arch`.
template <class Arch>
void fill_rows(KernelTable& t) noexcept {
  t.linear[DType::kF32] = simd::linear<Arch, float>;
  t.linear[DType::kBF16] = simd::linear<Arch, bf16>;
  t.linear[DType::kF16] = simd::linear<Arch, f16>;
  t.linear_pairs = simd::linear_pairs<Arch>;
  t.round_bf16 = simd::round_bf16<Arch>;
  t.pair_order = simd::PairOrder::kByToken;
  t.widen[DType::kF32] = simd::widen<Arch, float>;
  t.widen[DType::kBF16] = simd::widen<Arch, bf16>;
  t.widen[DType::kF16] = simd::widen<Arch, f16>;
  t.rms_norm = simd::rms_norm<Arch>;
  t.softmax = simd::softmax<Arch>;
  t.swiglu = simd::swiglu<Arch>;
  t.axpy = simd::axpy<Arch>;
  t.rope_half_split = simd::rope_half_split<Arch>;
  t.rope_interleaved = simd::rope_interleaved<Arch>;
  t.attention[DType::kF32] = simd::attention<Arch, float>;
  t.attention[DType::kBF16] = simd::attention<Arch, bf16>;
  t.attention[DType::kI8] = simd::attention<Arch, std::int8_t>;
  t.combine_attention = simd::combine_attention<Arch>;
  t.top2_of_8 = simd::top2_of_8<Arch>;
  t.quantize_slab = simd::quantize_slab<Arch>;
  t.pack_slab[DType::kP4] = simd::pack_slab_p4<Arch>;
  t.pack_slab[DType::kP8] = simd::pack_slab_p8<Arch>;
}

// For programs that link nothing of ours: the table of the architecture that this translation unit is
// compiled for (-mavx2 -mfma, ... decide; plain x86-64 means SSE2). The bits of the other tables need
// -ffp-contract=off, too: gcc and clang may otherwise fuse products and sums of their own choice.
template <class Arch = xsimd::default_arch>
const KernelTable& native_table() noexcept {
  static const KernelTable table = [] {
    KernelTable t{};
    t.name = "native";
    fill_rows<Arch>(t);
    fill_plain_packed<Arch>(t);
    return t;
  }();
  return table;
}

}  // namespace mixtral
