#include "mixtral/model/kv_cache.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <map>
#include <new>
#include <vector>

#include "support/allocations.hpp"
#include "support/error_of.hpp"
#include "support/random.hpp"

using namespace mixtral;

namespace {

constexpr KvLayout kLayout{1, 1, 2};

// One float of each position, which tells where it was written.
float& mark(const KvCache& cache, SlotId slot, Index position) {
  return reinterpret_cast<float*>(cache.pages(slot)[position / KvLayout::kPositions])[position % KvLayout::kPositions];
}

}  // namespace

TEST_CASE("positions count once committed, and what is not committed is given back") {
  KvCache cache(kLayout, 2, 4);
  CHECK(cache.allocated_bytes() == 0);
  CHECK(cache.max_bytes() == 4 * cache.page_bytes());
  const SlotId s = cache.open();
  CHECK(cache.length(s) == 0);
  cache.reserve(s, 40);
  CHECK(cache.length(s) == 0);
  CHECK(cache.capacity(s) == 40);
  CHECK(cache.allocated_bytes() == 2 * cache.page_bytes());
  cache.commit(s, 10);
  CHECK(cache.length(s) == 10);
  CHECK(cache.capacity(s) == 10);
  cache.reserve(s, 118);  // all four pages: the second one came back
  cache.roll_back(s);
  CHECK(cache.length(s) == 10);
  cache.reserve(s, 5);
  cache.reserve(s, 90);  // a second reservation replaces the first
  CHECK(cache.capacity(s) == 100);
  cache.reserve(s, 0);
  CHECK(cache.capacity(s) == 10);
  CHECK(cache.allocated_bytes() == 4 * cache.page_bytes());
}

TEST_CASE("truncating forgets the tail and any reservation") {
  KvCache cache(kLayout, 1, 4);
  const SlotId s = cache.open();
  cache.reserve(s, 100);
  cache.commit(s, 100);
  cache.reserve(s, 20);
  cache.truncate(s, 33);
  CHECK(cache.length(s) == 33);
  CHECK(cache.capacity(s) == 33);
  cache.reserve(s, 95);
  CHECK(cache.capacity(s) == 128);
  test::error_of([&] { cache.truncate(s, 34); });
  test::error_of([&] { cache.truncate(s, -1); });
  cache.truncate(s, 0);
  CHECK(cache.length(s) == 0);
}

TEST_CASE("a full cache says so with the numbers, and the slot is unchanged") {
  KvCache cache(kLayout, 2, 3);
  const SlotId a = cache.open(), b = cache.open();
  cache.reserve(a, 60);
  cache.commit(a, 60);
  cache.reserve(b, 20);
  cache.commit(b, 20);
  cache.reserve(b, 5);
  for (const Index n : {Index{13}, Index{1000}, std::numeric_limits<Index>::max()}) {
    const Error error = test::error_of([&] { cache.reserve(b, n); });
    CHECK(error.code() == ErrorCode::kContextFull);
    CHECK(test::names(error, str("needs ", n, " more")));
    CHECK(cache.capacity(b) == 25);
    CHECK(cache.length(b) == 20);
  }
  test::error_of([&] { cache.reserve(b, -1); });
  cache.reserve(b, 12);
  const Error slots = test::error_of([&] { cache.open(); });
  CHECK(slots.code() == ErrorCode::kContextFull);
  cache.close(a);
  CHECK(cache.open() == a);
  CHECK(cache.length(a) == 0);
}

TEST_CASE("slots that are not open are refused, closing them is no error") {
  KvCache cache(kLayout, 2, 2);
  const SlotId s = cache.open();
  cache.close(s);
  cache.close(s);
  cache.close(-1);
  cache.close(1000);
  for (const SlotId bad : {s, -1, 1, 2147483647}) {
    CHECK_FALSE(cache.is_open(bad));
    CHECK(test::names(test::error_of([&] { cache.reserve(bad, 1); }), str("slot ", bad, " is not open")));
    test::error_of([&] { (void)cache.length(bad); });
    test::error_of([&] { (void)cache.pages(bad); });
    test::error_of([&] { cache.commit(bad, 0); });
    test::error_of([&] { cache.truncate(bad, 0); });
  }
}

TEST_CASE("committing more than was reserved is refused") {
  KvCache cache(kLayout, 1, 2);
  const SlotId s = cache.open();
  cache.reserve(s, 3);
  test::error_of([&] { cache.commit(s, 4); });
  test::error_of([&] { cache.commit(s, -1); });
  CHECK(cache.capacity(s) == 3);
  cache.commit(s, 3);
  test::error_of([&] { cache.commit(s, 1); });
}

TEST_CASE("a cache that is empty, negative or too large to count in bytes is refused") {
  constexpr Index kHuge = std::numeric_limits<Index>::max();
  for (const KvLayout layout : {KvLayout{0, 1, 2}, KvLayout{1, -1, 2}, KvLayout{1, 1, 0}, KvLayout{kHuge, 1, 2},
                                KvLayout{1, kHuge, 2}, KvLayout{1, 1, kHuge}}) {
    test::error_of([&] { KvCache(layout, 1, 1); });
  }
  test::error_of([] { KvCache(kLayout, 0, 1); });
  test::error_of([] { KvCache(kLayout, 1, 0); });
  test::error_of([] { KvCache(kLayout, 1, kHuge); });
}

TEST_CASE("a refused allocation leaves the slot as it was, at every point where one can fail") {
  for (std::size_t nth = 0;; ++nth) {
    KvCache cache(kLayout, 1, 8);
    const SlotId s = cache.open();
    cache.reserve(s, 40);
    cache.commit(s, 40);
    cache.reserve(s, 2);
    bool refused = false;
    {
      const test::FailingAllocation failure(nth);
      try {
        cache.reserve(s, 150);
      } catch (const std::bad_alloc&) {
        refused = true;
      }
    }
    if (!refused) {
      CHECK(nth > 4);
      break;
    }
    CHECK(cache.length(s) == 40);
    CHECK(cache.capacity(s) == 42);
    cache.reserve(s, 216);  // and all pages are still there
    CHECK(cache.capacity(s) == 256);
  }
}

TEST_CASE("slots share pages, and who writes into one that others look at has a copy first") {
  KvCache cache(kLayout, 3, 6);
  const SlotId a = cache.open(), b = cache.open();
  cache.reserve(a, 70);
  for (Index p = 0; p < 70; ++p) mark(cache, a, p) = static_cast<float>(p);
  cache.commit(a, 70);
  cache.adopt(b, cache.committed_pages(a), 70);
  CHECK(cache.length(b) == 70);
  CHECK(cache.allocated_bytes() == 3 * cache.page_bytes());
  CHECK(cache.shared_bytes(a) == 3 * cache.page_bytes());
  CHECK(cache.held_bytes(b) == 3 * cache.page_bytes());
  for (Index page = 0; page < 3; ++page) CHECK(cache.pages(a)[page] == cache.pages(b)[page]);

  cache.reserve(b, 1);  // the last page is copied, the full ones are not
  CHECK(cache.allocated_bytes() == 4 * cache.page_bytes());
  CHECK(cache.shared_bytes(b) == 2 * cache.page_bytes());
  mark(cache, b, 70) = -1;
  cache.commit(b, 1);
  cache.reserve(a, 1);  // nobody else's any more
  CHECK(cache.allocated_bytes() == 4 * cache.page_bytes());
  mark(cache, a, 70) = -2;
  cache.commit(a, 1);
  CHECK(mark(cache, b, 70) == -1);

  cache.truncate(b, 40);  // into a page that was full
  cache.reserve(b, 1);
  mark(cache, b, 40) = -3;
  cache.commit(b, 1);
  for (Index p = 0; p < 70; ++p) CHECK(mark(cache, a, p) == static_cast<float>(p));
  cache.close(a);
  for (Index p = 0; p < 40; ++p) CHECK(mark(cache, b, p) == static_cast<float>(p));
  cache.close(b);
  CHECK(cache.allocated_bytes() == cache.free_bytes());
}

TEST_CASE("a page that is kept outlives its sequence and its cache, and another one goes on from it") {
  std::vector<KvPage> kept;
  {
    KvCache first(kLayout, 1, 2);
    const SlotId s = first.open();
    first.reserve(s, 40);
    for (Index p = 0; p < 40; ++p) mark(first, s, p) = static_cast<float>(p);
    first.commit(s, 40);
    kept.assign(first.committed_pages(s).begin(), first.committed_pages(s).begin() + 1);
    first.close(s);
    CHECK(first.free_bytes() == first.page_bytes());
    CHECK(first.allocated_bytes() == 2 * first.page_bytes());  // somebody holds one
    const SlotId again = first.open();
    CHECK(test::error_of([&] { first.reserve(again, 64); }).code() == ErrorCode::kContextFull);
  }
  KvCache second(kLayout, 1, 2);
  const SlotId s = second.open();
  second.adopt(s, kept, 32);
  for (Index p = 0; p < 32; ++p) CHECK(mark(second, s, p) == static_cast<float>(p));
  CHECK(second.shared_bytes(s) == second.page_bytes());
  kept.clear();
  CHECK(second.shared_bytes(s) == 0);
  second.reserve(s, 64);
  CHECK(second.capacity(s) == 96);  // two pages of its own making beside the one that it was given
}

TEST_CASE("pages that do not fit are refused, and the slot is as before") {
  KvCache cache(kLayout, 2, 4), other({2, 1, 2}, 1, 4);
  const SlotId a = cache.open(), b = cache.open(), o = other.open();
  cache.reserve(a, 40);
  cache.commit(a, 40);
  cache.reserve(b, 3);
  cache.commit(b, 3);
  other.reserve(o, 40);
  other.commit(o, 40);
  CHECK(test::names(test::error_of([&] { cache.adopt(b, cache.committed_pages(a), 32); }), "32 positions in 2 pages"));
  CHECK(test::names(test::error_of([&] { cache.adopt(b, other.committed_pages(o), 40); }), "another layout"));
  const KvPage none[1];
  test::error_of([&] { cache.adopt(b, none, 5); });
  for (std::size_t nth = 0; nth < 2; ++nth) {
    const test::FailingAllocation failure(nth);
    CHECK_THROWS_AS(cache.adopt(b, cache.committed_pages(a), 40), std::bad_alloc);
  }
  CHECK(cache.length(b) == 3);
  cache.adopt(b, cache.committed_pages(b), 3);  // its own
  CHECK(cache.length(b) == 3);
}

TEST_CASE("random use agrees with a simple model: lengths, room, and every position keeps what was written") {
  test::Random random(82);
  constexpr Index kPages = 9;
  struct Sequence {
    std::vector<float> committed;
    Index reserved = 0;
  };
  KvCache cache(kLayout, 4, kPages);
  std::map<SlotId, Sequence> model;
  float next = 1;
  const auto pages = [](Index n) { return (n + 31) / 32; };
  for (int round = 0; round < 4000; ++round) {
    Index used = 0;
    for (const auto& [slot, s] : model) used += pages(static_cast<Index>(s.committed.size()) + s.reserved);
    if (model.empty() || random.chance(0.05)) {
      if (model.size() < 4) {
        const SlotId slot = cache.open();
        CHECK(model.count(slot) == 0);
        model[slot] = {};
      } else {
        CHECK(test::error_of([&] { cache.open(); }).code() == ErrorCode::kContextFull);
      }
      continue;
    }
    auto it = model.begin();
    std::advance(it, random.index(0, static_cast<Index>(model.size()) - 1));
    auto& [slot, s] = *it;
    const auto length = static_cast<Index>(s.committed.size());
    switch (random.index(0, 10)) {
      case 10: {  // another one goes on from here
        if (model.size() == 4) continue;
        const SlotId fork = cache.open();
        cache.adopt(fork, cache.committed_pages(slot), length);
        model[fork] = {s.committed, 0};
        continue;
      }
      case 0:
        cache.close(slot);
        model.erase(it);
        continue;
      case 1: {
        const Index to = random.index(0, length);
        cache.truncate(slot, to);
        s.committed.resize(static_cast<std::size_t>(to));
        s.reserved = 0;
        break;
      }
      case 2:
        cache.roll_back(slot);
        s.reserved = 0;
        break;
      case 3:
      case 4: {
        const Index n = random.index(0, s.reserved);
        for (Index i = 0; i < n; ++i) {
          mark(cache, slot, length + i) = next;
          s.committed.push_back(next++);
        }
        cache.commit(slot, n);
        s.reserved = 0;
        break;
      }
      default: {
        const Index n = random.index(0, 70);
        if (used - pages(length + s.reserved) + pages(length + n) > kPages) {  // shared pages need less
          try {
            cache.reserve(slot, n);
          } catch (const Error& error) {
            CHECK(error.code() == ErrorCode::kContextFull);
            break;
          }
        } else {
          cache.reserve(slot, n);
        }
        s.reserved = n;
        for (Index i = 0; i < n; ++i) mark(cache, slot, length + i) = -1;
      }
    }
    CHECK(cache.length(slot) == static_cast<Index>(s.committed.size()));
    CHECK(cache.capacity(slot) == static_cast<Index>(s.committed.size()) + s.reserved);
    CHECK(cache.allocated_bytes() <= cache.max_bytes());
    bool kept = true;
    for (const auto& [id, sequence] : model) {
      for (std::size_t p = 0; p < sequence.committed.size(); ++p) {
        kept = kept && mark(cache, id, static_cast<Index>(p)) == sequence.committed[p];
      }
    }
    REQUIRE(kept);
  }
}
