// The paged key/value cache: reserve, then commit or roll back; a failed step changes nothing.
#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "mixtral/core/tensor.hpp"
#include "mixtral/model/config.hpp"
#include "mixtral/ops/attention.hpp"

namespace mixtral {

// dtype: F32, BF16 or I8.
inline KvLayout kv_layout(const ModelConfig& config, DType dtype) noexcept {
  return {config.n_layers, config.n_kv_heads, config.head_dim, dtype};
}

// Sequences ("slots") share a pool of pages of 32 positions. Pages are allocated when first needed and reused
// after that. Not thread-safe.
class KvCache {
 public:
  // At most `max_pages` pages and `max_slots` sequences at a time. Allocates no page yet.
  KvCache(KvLayout layout, Index max_slots, Index max_pages)
      : layout_(layout), max_slots_(max_slots), max_pages_(max_pages) {
    require(layout.n_layers > 0 && layout.n_kv_heads > 0 && layout.head_dim > 0 && max_slots > 0 && max_pages > 0,
            "KvCache: ", layout.n_layers, " layers, ", layout.n_kv_heads, " heads of ", layout.head_dim, ", ",
            max_slots, " slots, ", max_pages, " pages: all must be positive");
    require(kv_index(layout.dtype) >= 0, "KvCache: keys and values in ", name_of(layout.dtype),
            ", expected F32, BF16 or I8");
    require(std::max({layout.n_layers, layout.n_kv_heads, layout.head_dim}) <= kMaxDimension &&
                max_pages <= std::numeric_limits<Index>::max() / page_bytes(),
            "KvCache: ", layout.n_layers, " layers, ", layout.n_kv_heads, " heads of ", layout.head_dim, ", ",
            max_pages, " pages: too large to count in bytes");
  }

  const KvLayout& layout() const noexcept { return layout_; }
  // Memory held now, and at most.
  Index allocated_bytes() const noexcept { return static_cast<Index>(pages_.size()) * page_bytes(); }
  Index max_bytes() const noexcept { return max_pages_ * page_bytes(); }
  Index page_bytes() const noexcept { return layout_.page_bytes(); }

  // A new, empty sequence. Throws Error(kContextFull); then nothing has changed.
  SlotId open() {
    for (std::size_t s = 0; s < slots_.size(); ++s) {
      if (!slots_[s].open) {
        slots_[s].open = true;
        return static_cast<SlotId>(s);
      }
    }
    require(static_cast<Index>(slots_.size()) < max_slots_, ErrorCode::kContextFull, "KvCache: all ", max_slots_,
            " slots are in use");
    slots_.emplace_back().open = true;
    return static_cast<SlotId>(slots_.size() - 1);
  }

  // Ends a sequence; its pages return to the pool. Ignores a slot that is not open.
  void close(SlotId slot) noexcept {
    if (!is_open(slot)) return;
    Slot& s = slots_[static_cast<std::size_t>(slot)];
    keep_pages(s, 0);
    s.length = s.reserved = 0;
    s.open = false;
  }

  bool is_open(SlotId slot) const noexcept {
    return slot >= 0 && slot < static_cast<SlotId>(slots_.size()) && slots_[static_cast<std::size_t>(slot)].open;
  }
  // Committed positions.
  Index length(SlotId slot) const { return at(slot).length; }
  // Positions that may be written: committed and reserved ones.
  Index capacity(SlotId slot) const { return at(slot).length + at(slot).reserved; }
  // Page b holds positions [32 b, 32 b + 32). Valid until the next call that changes the slot.
  std::byte* const* pages(SlotId slot) const { return at(slot).pages.data(); }

  // Makes room for n more positions after the committed ones; they count only once committed. Throws
  // Error(kContextFull) or std::bad_alloc; then the slot is unchanged.
  void reserve(SlotId slot, Index n) {
    Slot& s = at(slot);
    require(n >= 0, "KvCache: reserve ", n, " positions");
    require(n <= max_pages_ * KvLayout::kPositions - s.length, ErrorCode::kContextFull, "KvCache: slot ", slot,
            " holds ", s.length, " positions and needs ", n, " more, all ", max_pages_, " pages hold ",
            max_pages_ * KvLayout::kPositions);
    const Index want = pages_for(s.length + n);
    const Index missing = want - static_cast<Index>(s.pages.size());
    const Index available = max_pages_ - static_cast<Index>(pages_.size()) + static_cast<Index>(free_.size());
    require(missing <= available, ErrorCode::kContextFull, "KvCache: slot ", slot, " holds ", s.length,
            " positions and needs ", n, " more: ", missing, " pages of ", KvLayout::kPositions, ", ", available, " of ",
            max_pages_, " are free");
    s.pages.reserve(static_cast<std::size_t>(want));
    while (static_cast<Index>(free_.size()) < missing) allocate_page();
    while (static_cast<Index>(s.pages.size()) < want) {
      s.pages.push_back(free_.back());
      free_.pop_back();
    }
    s.reserved = n;
    keep_pages(s, want);
  }

  // The first n reserved positions become part of the sequence; the others are given back.
  void commit(SlotId slot, Index n) {
    Slot& s = at(slot);
    require(n >= 0 && n <= s.reserved, "KvCache: commit ", n, " of ", s.reserved, " reserved positions");
    s.length += n;
    s.reserved = 0;
    keep_pages(s, pages_for(s.length));
  }
  void roll_back(SlotId slot) { commit(slot, 0); }

  // Makes `slot` hold the committed positions of another cache's slot `from`, and nothing else. Throws
  // Error(kContextFull | kInvalidArgument) or std::bad_alloc; then `slot` is empty.
  void copy_from(const KvCache& other, SlotId from, SlotId slot) {
    require(layout_ == other.layout_, "KvCache: copy from a cache of another layout");
    truncate(slot, 0);
    const Index length = other.length(from);
    reserve(slot, length);
    for (Index b = 0; b < pages_for(length); ++b) std::copy_n(other.pages(from)[b], page_bytes(), pages(slot)[b]);
    commit(slot, length);
  }

  // Forgets all positions from `length` on, and any reservation.
  void truncate(SlotId slot, Index length) {
    Slot& s = at(slot);
    require(length >= 0 && length <= s.length, "KvCache: truncate to ", length, " of ", s.length, " positions");
    s.length = length;
    s.reserved = 0;
    keep_pages(s, pages_for(length));
  }

 private:
  struct Slot {
    bool open = false;
    Index length = 0, reserved = 0;
    std::vector<std::byte*> pages;
  };
  struct Free {
    void operator()(std::byte* p) const noexcept { ::operator delete[](p, std::align_val_t{kTensorAlignment}); }
  };

  static constexpr Index kMaxDimension = Index{1} << 16;  // as in ModelConfig::validate

  static Index pages_for(Index length) noexcept { return (length + KvLayout::kPositions - 1) / KvLayout::kPositions; }

  const Slot& at(SlotId slot) const {
    require(is_open(slot), "KvCache: slot ", slot, " is not open");
    return slots_[static_cast<std::size_t>(slot)];
  }
  Slot& at(SlotId slot) { return const_cast<Slot&>(std::as_const(*this).at(slot)); }

  void allocate_page() {
    // Room in both lists first, so that nothing can fail once the page exists.
    pages_.reserve(pages_.size() + 1);
    free_.reserve(pages_.capacity());
    const auto count = static_cast<std::size_t>(page_bytes());
    pages_.emplace_back(new (std::align_val_t{kTensorAlignment}) std::byte[count]());
    free_.push_back(pages_.back().get());
  }
  // `free_` has room for every page that exists: this cannot fail.
  void keep_pages(Slot& s, Index n) noexcept {
    while (static_cast<Index>(s.pages.size()) > n) {
      free_.push_back(s.pages.back());
      s.pages.pop_back();
    }
  }

  KvLayout layout_;
  Index max_slots_, max_pages_;
  std::vector<Slot> slots_;
  std::vector<std::unique_ptr<std::byte[], Free>> pages_;  // all that were ever allocated
  std::vector<std::byte*> free_;
};

}  // namespace mixtral
