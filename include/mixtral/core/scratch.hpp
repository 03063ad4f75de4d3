// Memory for intermediate results: grows in the first step, then a steady decode loop allocates nothing.
#pragma once

#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "mixtral/core/tensor.hpp"

namespace mixtral {

// Where a Scratch has its blocks from: a pair of functions, so that whoever runs a model may bring huge pages.
struct BlockSource {
  // 64-byte aligned, uninitialised. Throws std::bad_alloc.
  std::byte* (*take)(std::size_t bytes) = [](std::size_t bytes) {
    return static_cast<std::byte*>(::operator new (bytes, std::align_val_t{kTensorAlignment}));
  };
  void (*give_back)(std::byte* block, std::size_t bytes) noexcept = [](std::byte* block, std::size_t) noexcept {
    ::operator delete (block, std::align_val_t{kTensorAlignment});
  };
};

// A stack of allocations. Memory taken inside a ScratchScope is given back when the scope ends. Not
// thread-safe: one thread at a time takes memory; any thread may use what was taken.
class Scratch {
 public:
  Scratch() = default;
  explicit Scratch(BlockSource source) noexcept : source_(source) {}

  // Uninitialised, 64-byte aligned, valid until the enclosing scope ends. Throws std::bad_alloc; then
  // nothing has changed.
  template <class T>
  T* take(Index count) {
    static_assert(std::is_trivially_copyable_v<T>);
    constexpr Index kMost = (kMaxIndex - static_cast<Index>(kTensorAlignment)) / static_cast<Index>(sizeof(T));
    if (count < 0 || count > kMost) throw std::bad_alloc();
    const auto bytes = (static_cast<std::size_t>(count) * sizeof(T) + kTensorAlignment - 1) & ~(kTensorAlignment - 1);
    return reinterpret_cast<T*>(take_bytes(bytes));
  }
  template <class T>
  TensorView<T, 2> matrix(Index rows, Index cols) {
    if (cols > 0 && rows > kMaxIndex / cols) throw std::bad_alloc();
    return {take<T>(rows * cols), Shape<2>{{rows, cols}}};
  }
  std::size_t capacity_bytes() const noexcept {
    std::size_t total = 0;
    for (const Block& block : blocks_) total += block.size;
    return total;
  }

 private:
  friend class ScratchScope;
  struct GiveBack {
    BlockSource source;
    std::size_t size;
    void operator()(std::byte* block) const noexcept { source.give_back(block, size); }
  };
  struct Block {
    std::unique_ptr<std::byte, GiveBack> data;
    std::size_t size;
  };
  static constexpr Index kMaxIndex = std::numeric_limits<Index>::max();
  static constexpr std::size_t kFirstBlock = std::size_t{1} << 16;

  std::byte* take_bytes(std::size_t bytes) {
    // A block that is too small for this request stays empty until the scope ends; blocks double, so the
    // waste is bounded by what is in use.
    std::size_t block = block_, used = used_;
    while (block < blocks_.size() && blocks_[block].size - used < bytes) {
      ++block;
      used = 0;
    }
    if (block == blocks_.size()) add_block(bytes);
    block_ = block;
    used_ = used + bytes;
    return blocks_[block].data.get() + used;
  }

  void add_block(std::size_t bytes) {
    const std::size_t last = blocks_.empty() ? kFirstBlock / 2 : blocks_.back().size;
    const std::size_t size = bytes > 2 * last ? bytes : 2 * last;
    blocks_.reserve(blocks_.size() + 1);
    blocks_.push_back({std::unique_ptr<std::byte, GiveBack>(source_.take(size), {source_, size}), size});
  }

  BlockSource source_;
  std::vector<Block> blocks_;
  std::size_t block_ = 0;  // the block in use
  std::size_t used_ = 0;   // bytes used of it
};

// Gives back at its end all that was taken since its beginning.
class ScratchScope {
 public:
  explicit ScratchScope(Scratch& scratch) noexcept : scratch_(scratch), block_(scratch.block_), used_(scratch.used_) {}
  ~ScratchScope() {
    scratch_.block_ = block_;
    scratch_.used_ = used_;
  }
  ScratchScope(const ScratchScope&) = delete;
  ScratchScope& operator=(const ScratchScope&) = delete;

 private:
  Scratch& scratch_;
  std::size_t block_, used_;
};

}  // namespace mixtral
