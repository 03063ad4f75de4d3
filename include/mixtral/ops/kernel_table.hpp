// The kernels of one instruction set: plain function pointers, filled at run time (mixtral::core) or from
// the including program's architecture (mixtral::headers, see ops/native_table.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include "mixtral/core/types.hpp"
#include "mixtral/ops/kv_layout.hpp"
#include "mixtral/simd/attention_rows.hpp"
#include "mixtral/simd/linear_pairs.hpp"
#include "mixtral/simd/pack_rows.hpp"
#include "mixtral/simd/packed_rows.hpp"

namespace mixtral {

// One kernel for each type of dense weights, of packed ones, and of those that are this library's own.
template <class Kernel>
using PerDenseType = PerDType<Kernel, DType::kF32, DType::kBF16, DType::kF16>;
template <class Kernel>
using PerPackedType = PerDType<Kernel, DType::kP4, DType::kP8, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ4_K>;
template <class Kernel>
using PerOwnType = PerDType<Kernel, DType::kP4, DType::kP8>;

struct KernelTable {
  const char* name;
  PerDenseType<void (*)(const simd::LinearArgs&) noexcept> linear;
  void (*linear_pairs)(const simd::PairArgs&) noexcept;  // BF16 weights, activations rounded to bf16
  void (*round_bf16)(const float* x, Index n, bf16* out) noexcept;
  simd::PairOrder pair_order;  // how linear_pairs wants them
  bool round_to_bf16;          // BF16 weights are multiplied by linear_pairs, other than the router's
  PerDenseType<void (*)(const std::byte* in, Index n, float* out) noexcept> widen;
  void (*rms_norm)(const float* x, const float* weight, float eps, Index n, float* y) noexcept;
  void (*softmax)(float* x, Index n) noexcept;
  void (*swiglu)(const float* gate, const float* up, Index n, float* h) noexcept;
  void (*axpy)(float a, const float* x, Index n, float* y) noexcept;
  void (*rope_half_split)(float* x, const float* cos, const float* sin, Index head_dim) noexcept;
  void (*rope_interleaved)(float* x, const float* cos, const float* sin, Index head_dim) noexcept;
  PerKvType<void (*)(const simd::AttentionArgs&) noexcept> attention;
  void (*combine_attention)(const simd::CombineArgs&) noexcept;
  bool (*top2_of_8)(const float* logits, std::int32_t* ids, float* weights) noexcept;
  void (*quantize_slab)(const float* x, Index n, std::int8_t* q, simd::SlabMeta* meta) noexcept;
  PerPackedType<void (*)(const simd::PackedLinearArgs&) noexcept> packed_linear;
  // The same products by a matrix unit, for so many tokens and more; null where there is none.
  PerOwnType<void (*)(const simd::PackedLinearArgs&) noexcept> packed_linear_tiles;
  static constexpr Index kNever = std::numeric_limits<Index>::max();
  Index matrix_unit_tokens = kNever;
  PerOwnType<bool (*)(const simd::PackSlabArgs&) noexcept> pack_slab;
};

}  // namespace mixtral
