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

// Indexed by DType: F32, BF16, F16.
inline constexpr int kLinearTypes = 3;
// Indexed by packed_index(): P4, P8.
inline constexpr int kPackedTypes = 2;

struct KernelTable {
  const char* name;
  void (*linear[kLinearTypes])(const simd::LinearArgs&) noexcept;
  void (*linear_pairs)(const simd::PairArgs&) noexcept;  // BF16 weights, activations rounded to bf16
  void (*round_bf16)(const float* x, Index n, bf16* out) noexcept;
  simd::PairOrder pair_order;  // how linear_pairs wants them
  bool round_to_bf16;          // BF16 weights are multiplied by linear_pairs, other than the router's
  void (*widen[kLinearTypes])(const std::byte* in, Index n, float* out) noexcept;
  void (*rms_norm)(const float* x, const float* weight, float eps, Index n, float* y) noexcept;
  void (*softmax)(float* x, Index n) noexcept;
  void (*swiglu)(const float* gate, const float* up, Index n, float* h) noexcept;
  void (*axpy)(float a, const float* x, Index n, float* y) noexcept;
  void (*rope_half_split)(float* x, const float* cos, const float* sin, Index head_dim) noexcept;
  void (*rope_interleaved)(float* x, const float* cos, const float* sin, Index head_dim) noexcept;
  void (*attention[kNumKvTypes])(const simd::AttentionArgs&) noexcept;  // by kv_index()
  void (*combine_attention)(const simd::CombineArgs&) noexcept;
  bool (*top2_of_8)(const float* logits, std::int32_t* ids, float* weights) noexcept;
  void (*quantize_slab)(const float* x, Index n, std::int8_t* q, simd::SlabMeta* meta) noexcept;
  void (*packed_linear[kPackedTypes])(const simd::PackedLinearArgs&) noexcept;
  // The same products by a matrix unit, for so many tokens and more; null where there is none.
  void (*packed_linear_tiles[kPackedTypes])(const simd::PackedLinearArgs&) noexcept;
  static constexpr Index kNever = std::numeric_limits<Index>::max();
  Index matrix_unit_tokens = kNever;
  bool (*pack_slab[kPackedTypes])(const simd::PackSlabArgs&) noexcept;
};

}  // namespace mixtral
