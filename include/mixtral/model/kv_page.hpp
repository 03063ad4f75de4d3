// Memory for 32 positions' keys and values of all layers, which several sequences may own together.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>

#include "mixtral/core/tensor.hpp"
#include "mixtral/ops/kv_layout.hpp"

namespace mixtral {

// One owner's hold of a page. Copies are further owners, on any thread; the last one frees it. Positions that somebody
// else may look at are never written: who is not the only owner copies the page first (KvCache::reserve).
class KvPage {
 public:
  KvPage() = default;
  // Zeros. `alive`, while somebody owns the page, counts it. Throws std::bad_alloc.
  static KvPage make(const KvLayout& layout, std::shared_ptr<std::atomic<Index>> alive) {
    const std::size_t bytes = kHeader + static_cast<std::size_t>(layout.page_bytes());
    auto* memory = static_cast<std::byte*>(::operator new (bytes, std::align_val_t{kTensorAlignment}));
    std::fill_n(memory + kHeader, layout.page_bytes(), std::byte{});
    alive->fetch_add(1, std::memory_order_relaxed);
    return KvPage(new (memory) Header{{1}, layout, std::move(alive)});
  }
  KvPage(const KvPage& other) noexcept : header_(other.header_) {
    if (header_ != nullptr) header_->owners.fetch_add(1, std::memory_order_relaxed);
  }
  KvPage(KvPage&& other) noexcept : header_(std::exchange(other.header_, nullptr)) {}
  KvPage& operator=(KvPage other) noexcept {
    std::swap(header_, other.header_);
    return *this;
  }
  ~KvPage() {
    if (header_ == nullptr || header_->owners.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
    header_->alive->fetch_sub(1, std::memory_order_relaxed);
    header_->~Header();
    ::operator delete (header_, std::align_val_t{kTensorAlignment});
  }

  explicit operator bool() const noexcept { return header_ != nullptr; }
  std::byte* data() const noexcept { return reinterpret_cast<std::byte*>(header_) + kHeader; }
  const KvLayout& layout() const noexcept { return header_->layout; }
  // Whether there are other owners. Once there are none, what they did with the page has happened.
  bool is_shared() const noexcept { return header_->owners.load(std::memory_order_acquire) > 1; }

 private:
  struct Header {
    std::atomic<Index> owners;
    KvLayout layout;
    std::shared_ptr<std::atomic<Index>> alive;
  };
  static constexpr std::size_t kHeader = (sizeof(Header) + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;

  explicit KvPage(Header* header) noexcept : header_(header) {}

  Header* header_ = nullptr;
};

}  // namespace mixtral
