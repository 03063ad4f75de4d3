// How keys and values lie in the pages of a cache.
#pragma once

#include "mixtral/core/dtype.hpp"
#include "mixtral/simd/kv_block.hpp"

namespace mixtral {

// One value for each type that a cache's elements may have.
template <class T>
using PerKvType = PerDType<T, DType::kF32, DType::kBF16, DType::kI8>;
inline constexpr auto& kKvTypes = PerKvType<int>::kAll;
constexpr bool is_kv_type(DType dtype) noexcept { return PerKvType<int>::has(dtype); }

// Where the parts of a block begin, in bytes. The scales of i8 stand first.
struct KvBlockLayout {
  DType dtype = DType::kF32;
  Index head_dim = 0;

  constexpr Index k_offset() const noexcept {
    return dtype == DType::kI8 ? 2 * simd::kKvBlock * static_cast<Index>(sizeof(float)) : 0;
  }
  constexpr Index v_offset() const noexcept {
    const Index rows = dtype == DType::kBF16 ? (head_dim + 1) / 2 * 2 : head_dim;
    return k_offset() + rows * simd::kKvBlock * size_of(dtype);
  }
  constexpr Index bytes() const noexcept {
    return v_offset() + simd::kKvBlock * simd::kv_stride(head_dim) * size_of(dtype);
  }

  // Writes position t of the block.  k, v [head_dim]
  void write(std::byte* block, Index t, const float* k, const float* v) const noexcept {
    switch (dtype) {
      case DType::kBF16: return write_bf16(block, t, k, v);
      case DType::kI8: return write_i8(block, t, k, v);
      default: return write_f32(block, t, k, v);
    }
  }

 private:
  void write_f32(std::byte* block, Index t, const float* k, const float* v) const noexcept {
    auto* keys = reinterpret_cast<float*>(block) + t;
    for (Index d = 0; d < head_dim; ++d) keys[d * simd::kKvBlock] = k[d];
    auto* values = reinterpret_cast<float*>(block + v_offset()) + t * simd::kv_stride(head_dim);
    for (Index d = 0; d < head_dim; ++d) values[d] = v[d];
  }
  void write_bf16(std::byte* block, Index t, const float* k, const float* v) const noexcept {
    auto* keys = reinterpret_cast<bf16*>(block) + 2 * t;
    for (Index d = 0; d < head_dim; ++d) keys[d / 2 * 2 * simd::kKvBlock + d % 2] = to_bf16(k[d]);
    auto* values = reinterpret_cast<bf16*>(block + v_offset()) + t / 2 * 2 * simd::kv_stride(head_dim) + t % 2;
    for (Index d = 0; d < head_dim; ++d) values[2 * d] = to_bf16(v[d]);
  }
  void write_i8(std::byte* block, Index t, const float* k, const float* v) const noexcept {
    auto* scales = reinterpret_cast<float*>(block) + t;
    scales[0] = quantize(k, reinterpret_cast<std::int8_t*>(block + k_offset()) + t, simd::kKvBlock);
    scales[simd::kKvBlock] =
        quantize(v, reinterpret_cast<std::int8_t*>(block + v_offset()) + t * simd::kv_stride(head_dim), 1);
  }
  // To bytes, `step` apart; returns the scale. An infinity or a NaN makes it NaN, so that it shows in every output.
  float quantize(const float* x, std::int8_t* q, Index step) const noexcept {
    float most = 0, bad = 0;
    for (Index d = 0; d < head_dim; ++d) {
      const float magnitude = x[d] < 0 ? -x[d] : x[d];
      most = magnitude > most ? magnitude : most;
      bad += x[d] * 0;
    }
    const bool usable = bad == 0 && most >= 1e-30f;
    const float inverse = usable ? 127.0f / most : 0.0f;
    for (Index d = 0; d < head_dim; ++d) {
      const float rounded = usable ? (x[d] * inverse + simd::kRoundingMagic) - simd::kRoundingMagic : 0.0f;
      q[d * step] = static_cast<std::int8_t>(rounded < -127 ? -127.0f : rounded > 127 ? 127.0f : rounded);
    }
    return usable ? most / 127.0f : bad;
  }
};

// How keys and values lie in memory. A page holds kPositions positions of one sequence for all layers and key/value
// heads; a block of simd/kv_block.hpp for each. Results do not depend on how a sequence was split into steps, since
// pages begin at multiples of 32 positions.
struct KvLayout {
  static constexpr Index kPositions = simd::kKvBlock;

  Index n_layers = 0, n_kv_heads = 0, head_dim = 0;
  DType dtype = DType::kF32;  // or BF16 or I8

  bool operator==(const KvLayout&) const = default;
  KvBlockLayout block() const noexcept { return {dtype, head_dim}; }
  // A multiple of 64, so that every block is aligned.
  Index block_bytes() const noexcept { return (block().bytes() + 63) / 64 * 64; }
  Index page_bytes() const noexcept { return n_layers * n_kv_heads * block_bytes(); }
  // Where a block begins in its page.
  Index block_offset(Index layer, Index head) const noexcept { return (layer * n_kv_heads + head) * block_bytes(); }

  // Writes one position's keys and values of one layer.  k, v [n_kv_heads * head_dim]
  void write(std::byte* page, Index layer, Index position, const float* k, const float* v) const noexcept {
    for (Index head = 0; head < n_kv_heads; ++head) {
      block().write(page + block_offset(layer, head), position % kPositions, k + head * head_dim, v + head * head_dim);
    }
  }
};

}  // namespace mixtral
