// What crosses the border: option structs of any version, caller's buffers, pointers with lengths.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include "mixtral.h"
#include "mixtral/core/error.hpp"
#include "mixtral/core/types.hpp"

namespace mixtral::capi {

// A struct_size above this is a mistake, not a later version: nothing behind the struct is read.
inline constexpr std::size_t kMaxStructBytes = 1024;

// The bytes of a struct in the version that brought it. What stands behind them in mixtral.h says since when.
template <class T>
inline constexpr std::size_t kFirstSize = sizeof(T);
template <>
inline constexpr std::size_t kFirstSize<mixtral_params> = offsetof(mixtral_params, bf16_products);
template <>
inline constexpr std::size_t kFirstSize<mixtral_session_params> = offsetof(mixtral_session_params, kv_type);
template <>
inline constexpr std::size_t kFirstSize<mixtral_session_state> = offsetof(mixtral_session_state, kv_shared_bytes);
template <>
inline constexpr std::size_t kFirstSize<mixtral_generate_result> = offsetof(mixtral_generate_result, n_prompt);

template <class T>
void require_struct(const T* user, const char* name) {
  static_assert(std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T>);
  require(user != nullptr, name, " is NULL");
  require(user->struct_size >= kFirstSize<T> && user->struct_size <= kMaxStructBytes, name, ": struct_size is ",
          user->struct_size, ", expected ", kFirstSize<T>, " to ", kMaxStructBytes);
}

// Fields that the caller's struct does not have keep their value in `defaults`; fields that are not known here must be
// zero.
template <class T>
T read_struct(const T* user, const T& defaults, const char* name) {
  require_struct(user, name);
  T options = defaults;
  const std::size_t size = user->struct_size;
  std::memcpy(&options, user, std::min(size, sizeof(T)));
  const auto* bytes = reinterpret_cast<const unsigned char*>(user);
  for (std::size_t i = sizeof(T); i < size; ++i) {
    require(bytes[i] == 0, name, ": byte ", i, " is not zero: an option that this version (", mixtral_version_text(),
            ") does not know");
  }
  return options;
}

// As much of `value` as the caller's struct holds; what is not known here becomes zero.
template <class T>
void write_struct(T* user, T value, const char* name) {
  require_struct(user, name);
  value.struct_size = user->struct_size;
  const std::size_t known = std::min<std::size_t>(user->struct_size, sizeof(T));
  std::memset(user, 0, value.struct_size);
  std::memcpy(user, &value, known);
}

// For mixtral_*_init().
template <class T>
void init_struct(T* user, std::size_t struct_size, const T& defaults, const char* name) {
  require(user != nullptr, name, " is NULL");
  require(struct_size >= kFirstSize<T> && struct_size <= kMaxStructBytes, name, ": struct_size is ", struct_size,
          ", expected ", kFirstSize<T>, " to ", kMaxStructBytes);
  user->struct_size = static_cast<std::uint32_t>(struct_size);
  write_struct(user, defaults, name);
}

// `known`: all flags of this version.
inline void require_flags(std::uint32_t flags, std::uint32_t known, const char* name) {
  require((flags & ~known) == 0, name, ": flags ", flags, " has bits that this version does not know");
}

inline constexpr std::size_t kMaxBytes = std::size_t{1} << 62;

// An array that the caller gives.
template <class T>
std::span<const T> input(const T* data, std::size_t size, const char* name) {
  require(data != nullptr || size == 0, name, " is NULL but its length is ", size);
  require(size <= kMaxBytes / sizeof(T), name, ": length ", size, " is more than any memory");
  return {data, size};
}

inline std::string_view input_text(const char* data, std::size_t size, const char* name) {
  const std::span<const char> text = input(data, size, name);
  return {text.data(), text.size()};
}

// A buffer that the caller gives for an answer of a size that only the call finds out.
template <class T>
class Output {
 public:
  Output(T* data, std::size_t capacity, std::size_t* size, const char* name)
      : data_(data), capacity_(capacity), size_(size), name_(name) {
    require(size != nullptr, "the place for the size of ", name, " is NULL");
    require(data != nullptr || capacity == 0, name, " is NULL but its capacity is ", capacity);
  }

  // Throws Error(kBufferTooSmall) if so many values do not fit; then only the size is told.
  void require_room(std::size_t size) const {
    if (size <= capacity_) return;
    // The text first: if there is no memory for it, not even that.
    const Error error(ErrorCode::kBufferTooSmall, str(name_, ": capacity ", capacity_, ", the answer has ", size));
    *size_ = size;
    throw error;
  }

  template <class U>
  void write(const U& values) const {
    require_room(values.size());
    std::transform(values.begin(), values.end(), data_, [](const auto& value) { return static_cast<T>(value); });
    *size_ = values.size();
  }

 private:
  T* data_;
  std::size_t capacity_;
  std::size_t* size_;
  const char* name_;
};

}  // namespace mixtral::capi
