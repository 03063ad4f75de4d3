// Row-major tensors of static rank: `TensorView` looks, `Tensor` owns.
#pragma once

#include <array>
#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <type_traits>

#include "mixtral/core/error.hpp"
#include "mixtral/core/types.hpp"

namespace mixtral {

template <int R>
struct Shape {
  std::array<Index, static_cast<std::size_t>(R)> dims{};

  constexpr Index operator[](int i) const noexcept { return dims[static_cast<std::size_t>(i)]; }
  constexpr Index& operator[](int i) noexcept { return dims[static_cast<std::size_t>(i)]; }
  constexpr Index count() const noexcept {
    Index n = 1;
    for (const Index d : dims) n *= d;
    return n;
  }
  bool operator==(const Shape&) const = default;
};

inline std::string shape_text(std::span<const Index> dims) {
  std::string out = "[";
  for (std::size_t i = 0; i < dims.size(); ++i) out += str(i == 0 ? "" : ", ", dims[i]);
  return out + "]";
}
template <int R>
std::string shape_text(const Shape<R>& shape) {
  return shape_text(std::span<const Index>(shape.dims));
}
// A shape as a part of a message: its text is only made if there is one.
template <int R>
void append(std::string& out, const Shape<R>& shape) {
  out += shape_text(shape);
}

// Looks at `shape` elements at `data`. The last dimension is contiguous; `row_stride` is the distance in
// elements between consecutive rows, a row being one index of the first R-1 dimensions together.
template <class T, int R>
class TensorView {
 public:
  TensorView() = default;
  TensorView(T* data, Shape<R> shape) : TensorView(data, shape, shape[R - 1]) {}
  TensorView(T* data, Shape<R> shape, Index row_stride) : data_(data), shape_(shape), row_stride_(row_stride) {}
  // From mutable to const.
  template <class U>
  requires(std::is_same_v<const U, T>) TensorView(const TensorView<U, R>& other)
      : TensorView(other.data(), other.shape(), other.row_stride()) {}

  T* data() const noexcept { return data_; }
  const Shape<R>& shape() const noexcept { return shape_; }
  Index dim(int i) const noexcept { return shape_[i]; }
  Index row_stride() const noexcept { return row_stride_; }

  // All dimensions but the last, flattened.
  Index n_rows() const noexcept {
    Index n = 1;
    for (int i = 0; i + 1 < R; ++i) n *= shape_[i];
    return n;
  }
  Index n_cols() const noexcept { return shape_[R - 1]; }
  T* row(Index i) const noexcept { return data_ + i * row_stride_; }
  std::span<T> row_span(Index i) const noexcept { return {row(i), static_cast<std::size_t>(n_cols())}; }

  // Rows [begin, begin + count).
  TensorView rows(Index begin, Index count) const noexcept requires(R == 2) {
    return {row(begin), Shape<2>{{count, n_cols()}}, row_stride_};
  }
  // Columns [begin, begin + count).
  TensorView columns(Index begin, Index count) const noexcept requires(R == 2) {
    return {data_ + begin, Shape<2>{{shape_[0], count}}, row_stride_};
  }

 private:
  T* data_ = nullptr;
  Shape<R> shape_{};
  Index row_stride_ = 0;
};

inline constexpr std::size_t kTensorAlignment = 64;  // a cache line and an AVX-512 register

// Owns a dense tensor, zero at first. Throws Error(kInvalidArgument) on a shape that no index can count.
template <class T, int R>
class Tensor {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Tensor() = default;
  explicit Tensor(Shape<R> shape) : shape_(shape) {
    const std::size_t count = checked_count(shape);
    if (count > 0) data_.reset(new (std::align_val_t{kTensorAlignment}) T[count]());
  }

  T* data() noexcept { return data_.get(); }
  const T* data() const noexcept { return data_.get(); }
  const Shape<R>& shape() const noexcept { return shape_; }
  Index dim(int i) const noexcept { return shape_[i]; }
  Index size() const noexcept { return shape_.count(); }

  TensorView<T, R> view() noexcept { return {data(), shape_}; }
  TensorView<const T, R> view() const noexcept { return {data(), shape_}; }
  TensorView<const T, R> cview() const noexcept { return view(); }
  T* row(Index i) noexcept { return view().row(i); }
  const T* row(Index i) const noexcept { return view().row(i); }
  std::span<T> span() noexcept { return {data(), static_cast<std::size_t>(size())}; }
  std::span<const T> span() const noexcept { return {data(), static_cast<std::size_t>(size())}; }

 private:
  static std::size_t checked_count(const Shape<R>& shape) {
    Index n = 1;
    for (const Index d : shape.dims) {
      require(d >= 0 && (d == 0 || n <= std::numeric_limits<Index>::max() / d), "Tensor: ", shape,
              " has a negative dimension or too many elements");
      n *= d;
    }
    return static_cast<std::size_t>(n);
  }
  struct Free {
    void operator()(T* p) const noexcept { ::operator delete[](p, std::align_val_t{kTensorAlignment}); }
  };
  std::unique_ptr<T[], Free> data_;
  Shape<R> shape_{};
};

template <class T>
using VectorView = TensorView<T, 1>;
template <class T>
using Matrix = Tensor<T, 2>;

}  // namespace mixtral
