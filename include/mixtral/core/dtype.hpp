// Element types of stored tensors.
#pragma once

#include <cstdint>
#include <string_view>

#include "mixtral/core/error.hpp"
#include "mixtral/core/float16.hpp"
#include "mixtral/core/types.hpp"

namespace mixtral {

// Pinned like ErrorCode. The first three are dense weights, those from P4 on packed ones (core/packed_layout.hpp); the
// others only travel in files.
enum class DType : std::int32_t {
  kF32 = 0,
  kBF16 = 1,
  kF16 = 2,
  kF64 = 3,
  kI32 = 4,
  kU8 = 5,
  kI64 = 6,
  kI16 = 7,
  kI8 = 8,
  kU64 = 9,
  kU32 = 10,
  kU16 = 11,
  kBool = 12,
  kF8E4M3 = 13,
  kF8E5M2 = 14,
  kF8E8M0 = 15,
  kC64 = 16,
  kP4 = 17,
  kP8 = 18,
  kQ8_0 = 19,
  kQ4_0 = 20,
  kQ4_1 = 21,
  kQ4_K = 22,
};
inline constexpr int kWeightDTypes = 3;

// Dense weights.
constexpr bool is_weight(DType dtype) noexcept { return static_cast<int>(dtype) < kWeightDTypes; }
constexpr bool is_packed(DType dtype) noexcept { return dtype >= DType::kP4 && dtype <= DType::kQ4_K; }
// Packed with a scale for each block of 32 columns, as GGUF has them.
constexpr bool has_block_scales(DType dtype) noexcept { return dtype >= DType::kQ8_0 && dtype <= DType::kQ4_K; }

struct DTypeInfo {
  DType dtype;
  std::string_view name;  // as in safetensors headers, which have no packed ones
  Index bytes;            // of an element; 0: packed
};

inline constexpr DTypeInfo kDTypes[] = {
    {DType::kF32, "F32", 4},        {DType::kBF16, "BF16", 2},      {DType::kF16, "F16", 2},
    {DType::kF64, "F64", 8},        {DType::kI32, "I32", 4},        {DType::kU8, "U8", 1},
    {DType::kI64, "I64", 8},        {DType::kI16, "I16", 2},        {DType::kI8, "I8", 1},
    {DType::kU64, "U64", 8},        {DType::kU32, "U32", 4},        {DType::kU16, "U16", 2},
    {DType::kBool, "BOOL", 1},      {DType::kF8E4M3, "F8_E4M3", 1}, {DType::kF8E5M2, "F8_E5M2", 1},
    {DType::kF8E8M0, "F8_E8M0", 1}, {DType::kC64, "C64", 8},        {DType::kP4, "P4", 0},
    {DType::kP8, "P8", 0},          {DType::kQ8_0, "Q8_0", 0},      {DType::kQ4_0, "Q4_0", 0},
    {DType::kQ4_1, "Q4_1", 0},      {DType::kQ4_K, "Q4_K", 0},
};

constexpr Index size_of(DType dtype) noexcept { return kDTypes[static_cast<int>(dtype)].bytes; }
constexpr std::string_view name_of(DType dtype) noexcept { return kDTypes[static_cast<int>(dtype)].name; }

template <class T>
struct dtype_of;
template <>
struct dtype_of<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct dtype_of<bf16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct dtype_of<f16> {
  static constexpr DType value = DType::kF16;
};
template <>
struct dtype_of<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct dtype_of<std::int32_t> {
  static constexpr DType value = DType::kI32;
};

// One value for each of some types, indexed by the type.
template <class T, DType... kTypes>
class PerDType {
 public:
  static constexpr DType kAll[] = {kTypes...};
  static constexpr bool has(DType dtype) noexcept { return ((dtype == kTypes) || ...); }

  // Of one of the types. Inlined: kernels' files, too, fill tables, and share no function with the others.
  [[gnu::always_inline]] constexpr T& operator[](DType dtype) noexcept { return values_[index(dtype)]; }
  [[gnu::always_inline]] constexpr const T& operator[](DType dtype) const noexcept { return values_[index(dtype)]; }

 private:
  [[gnu::always_inline]] static constexpr int index(DType dtype) noexcept {
    int i = 0;
    (void)((dtype != kTypes && ++i != 0) && ...);
    return i;
  }

  T values_[sizeof...(kTypes)] = {};
};

}  // namespace mixtral
