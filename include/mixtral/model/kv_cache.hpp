// The paged key/value cache: reserve, then commit or roll back; a failed step changes nothing.
#pragma once

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "mixtral/core/tensor.hpp"
#include "mixtral/model/config.hpp"
#include "mixtral/model/kv_page.hpp"
#include "mixtral/ops/attention.hpp"

namespace mixtral {

// dtype: F32, BF16 or I8.
inline KvLayout kv_layout(const ModelConfig& config, DType dtype) noexcept {
  return {config.n_layers, config.n_kv_heads, config.head_dim, dtype};
}

// Sequences ("slots") of pages of 32 positions. Pages are allocated when first needed and reused after that. Several
// slots, of this cache or of others, may hold one page: a sequence goes on from another's without a copy. A cache is
// used by one thread at a time; caches that share pages may be used by different ones.
class KvCache {
 public:
  // At most `max_slots` sequences at a time, and `max_pages` pages of its making that anybody holds. Allocates no page
  // yet.
  KvCache(KvLayout layout, Index max_slots, Index max_pages)
      : layout_(layout), max_slots_(max_slots), max_pages_(max_pages) {
    require(layout.n_layers > 0 && layout.n_kv_heads > 0 && layout.head_dim > 0 && max_slots > 0 && max_pages > 0,
            "KvCache: ", layout.n_layers, " layers, ", layout.n_kv_heads, " heads of ", layout.head_dim, ", ",
            max_slots, " slots, ", max_pages, " pages: all must be positive");
    require(is_kv_type(layout.dtype), "KvCache: keys and values in ", name_of(layout.dtype),
            ", expected F32, BF16 or I8");
    require(std::max({layout.n_layers, layout.n_kv_heads, layout.head_dim}) <= kMaxDimension &&
                max_pages <= std::numeric_limits<Index>::max() / page_bytes(),
            "KvCache: ", layout.n_layers, " layers, ", layout.n_kv_heads, " heads of ", layout.head_dim, ", ",
            max_pages, " pages: too large to count in bytes");
  }

  const KvLayout& layout() const noexcept { return layout_; }
  // Memory of the pages that this cache has made and that anybody holds, each once; and at most.
  Index allocated_bytes() const noexcept { return alive() * page_bytes(); }
  Index max_bytes() const noexcept { return max_pages_ * page_bytes(); }
  // Memory of a slot's pages, and of those of them that others hold, too.
  Index held_bytes(SlotId slot) const { return static_cast<Index>(at(slot).pages.size()) * page_bytes(); }
  Index shared_bytes(SlotId slot) const {
    const std::vector<KvPage>& pages = at(slot).pages;
    return std::count_if(pages.begin(), pages.end(), [](const KvPage& page) { return page.is_shared(); }) *
           page_bytes();
  }
  // Memory of pages that wait to be used again.
  Index free_bytes() const noexcept { return static_cast<Index>(free_.size()) * page_bytes(); }
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

  // How many slots there have been: each is below that.
  Index n_slots() const noexcept { return static_cast<Index>(slots_.size()); }

  // Ends a sequence; pages that nobody else holds wait to be used again. Ignores a slot that is not open.
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
  std::byte* const* pages(SlotId slot) const { return at(slot).data.data(); }
  // Those with committed positions. A copy keeps its page whatever becomes of the slot.
  std::span<const KvPage> committed_pages(SlotId slot) const {
    const Slot& s = at(slot);
    return std::span(s.pages).first(static_cast<std::size_t>(pages_for(s.length)));
  }

  // Makes room for n more positions after the committed ones; they count only once committed. A page that they share
  // with committed ones, and that others hold, too, is copied. Throws Error(kContextFull) or std::bad_alloc; then the
  // slot is unchanged.
  void reserve(SlotId slot, Index n) {
    Slot& s = at(slot);
    require(n >= 0, "KvCache: reserve ", n, " positions");
    require(n <= std::numeric_limits<Index>::max() - KvLayout::kPositions - s.length, ErrorCode::kContextFull,
            "KvCache: slot ", slot, " holds ", s.length, " positions and needs ", n, " more, which no cache has");
    const Index want = pages_for(s.length + n), have = static_cast<Index>(s.pages.size());
    const auto last = static_cast<std::size_t>(s.length / KvLayout::kPositions);  // the page that is written first
    const bool copies = n > 0 && s.length % KvLayout::kPositions != 0 && s.pages[last].is_shared();
    const Index missing = std::max<Index>(want - have, 0) + (copies ? 1 : 0);
    const Index available = max_pages_ - alive() + static_cast<Index>(free_.size());
    require(missing <= available, ErrorCode::kContextFull, "KvCache: slot ", slot, " holds ", s.length,
            " positions and needs ", n, " more: ", missing, " pages of ", KvLayout::kPositions, ", ", available, " of ",
            max_pages_, " are free");
    make_room(s, want);
    while (static_cast<Index>(free_.size()) < missing) free_.push_back(KvPage::make(layout_, alive_));
    if (copies) {
      KvPage own = take_free();
      std::copy_n(s.pages[last].data(), page_bytes(), own.data());
      s.data[last] = own.data();
      s.pages[last] = std::move(own);
    }
    while (static_cast<Index>(s.pages.size()) < want) add_page(s, take_free());
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

  // Makes `slot` hold `length` committed positions in these pages, which it shares with whoever else holds them, and
  // nothing else. Throws Error(kInvalidArgument) on pages that are too few or many for that, or of another layout, and
  // std::bad_alloc; then `slot` is as before.
  void adopt(SlotId slot, std::span<const KvPage> pages, Index length) {
    Slot& s = at(slot);
    require(length >= 0 && static_cast<Index>(pages.size()) == pages_for(length), "KvCache: ", length, " positions in ",
            pages.size(), " pages of ", KvLayout::kPositions);
    for (const KvPage& page : pages) {
      require(page && page.layout() == layout_, "KvCache: a page of another layout, or none");
    }
    Slot adopted{.open = true, .length = length};
    make_room(adopted, static_cast<Index>(pages.size()));
    make_room(s, 0);
    for (const KvPage& page : pages) add_page(adopted, page);
    keep_pages(s, 0);
    s = std::move(adopted);
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
    std::vector<KvPage> pages = {};
    std::vector<std::byte*> data = {};  // theirs
  };

  static constexpr Index kMaxDimension = Index{1} << 16;  // as in ModelConfig::validate

  static Index pages_for(Index length) noexcept { return (length + KvLayout::kPositions - 1) / KvLayout::kPositions; }

  const Slot& at(SlotId slot) const {
    require(is_open(slot), "KvCache: slot ", slot, " is not open");
    return slots_[static_cast<std::size_t>(slot)];
  }
  Slot& at(SlotId slot) { return const_cast<Slot&>(std::as_const(*this).at(slot)); }

  Index alive() const noexcept { return alive_->load(std::memory_order_relaxed); }

  template <class T>
  static void grow(std::vector<T>& list, std::size_t size) {
    if (list.capacity() < size) list.reserve(std::max(size, 2 * list.capacity()));
  }
  // For a slot of so many pages, and for all pages of this cache among the free ones: nothing can fail from here on.
  void make_room(Slot& s, Index pages) {
    const auto n = static_cast<std::size_t>(std::max<Index>(pages, static_cast<Index>(s.pages.size())));
    grow(free_, free_.size() + static_cast<std::size_t>(held_) + n - s.pages.size() + 1);
    grow(s.pages, n);
    grow(s.data, n);
  }
  void add_page(Slot& s, KvPage page) noexcept {
    ++held_;
    s.data.push_back(page.data());
    s.pages.push_back(std::move(page));
  }
  KvPage take_free() noexcept {
    KvPage page = std::move(free_.back());
    free_.pop_back();
    return page;
  }
  void keep_pages(Slot& s, Index n) noexcept {
    while (static_cast<Index>(s.pages.size()) > n) {
      if (!s.pages.back().is_shared()) free_.push_back(std::move(s.pages.back()));
      s.pages.pop_back();
      s.data.pop_back();
      --held_;
    }
  }

  KvLayout layout_;
  Index max_slots_, max_pages_;
  std::vector<Slot> slots_;
  std::shared_ptr<std::atomic<Index>> alive_ = std::make_shared<std::atomic<Index>>(0);  // pages of its making
  std::vector<KvPage> free_;                                                             // nobody else's
  Index held_ = 0;  // pages of all slots, each slot's
};

}  // namespace mixtral
