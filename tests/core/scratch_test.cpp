#include "mixtral/core/scratch.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <new>

#include "mixtral/runtime/huge_pages.hpp"
#include "support/allocations.hpp"
#include "support/random.hpp"

using namespace mixtral;

TEST_CASE("scratch memory is aligned to 64 bytes, whatever was taken before") {
  Scratch scratch;
  for (const Index n : {1, 3, 0, 64, 65, 100000}) {
    CHECK(reinterpret_cast<std::uintptr_t>(scratch.take<char>(n)) % kTensorAlignment == 0);
  }
  const auto m = scratch.matrix<float>(3, 5);
  CHECK(m.dim(0) == 3);
  CHECK(m.dim(1) == 5);
}

TEST_CASE("memory taken in a scope is taken again after it, that of the enclosing scope is kept") {
  Scratch scratch;
  const ScratchScope outer(scratch);
  int* kept = scratch.take<int>(10);
  kept[9] = 42;
  int* inner = nullptr;
  {
    const ScratchScope scope(scratch);
    inner = scratch.take<int>(10);
    CHECK(inner != kept);
  }
  CHECK(scratch.take<int>(10) == inner);
  CHECK(kept[9] == 42);
}

TEST_CASE("pieces taken at random never overlap, across blocks and nested scopes") {
  test::Random random(3);
  Scratch scratch;
  struct Piece {
    unsigned char* data;
    Index size;
    unsigned char mark;
  };
  std::vector<Piece> pieces;
  const auto run = [&](auto&& self, int depth) -> void {
    const ScratchScope scope(scratch);
    const std::size_t before = pieces.size();
    for (int i = 0; i < 6; ++i) {
      const Index n = random.chance(0.2) ? random.index(1, 200000) : random.index(0, 300);
      const auto mark = static_cast<unsigned char>(pieces.size());
      pieces.push_back({scratch.take<unsigned char>(n), n, mark});
      std::memset(pieces.back().data, mark, static_cast<std::size_t>(n));
      if (depth < 3 && random.chance(0.5)) self(self, depth + 1);
    }
    bool intact = true;
    for (const Piece& p : pieces) {
      for (Index i = 0; i < p.size; ++i) intact = intact && p.data[i] == p.mark;
    }
    CHECK(intact);
    pieces.resize(before);
  };
  for (int round = 0; round < 3; ++round) run(run, 0);
}

TEST_CASE("after the first round nothing is allocated") {
  Scratch scratch;
  const auto round = [&] {
    const ScratchScope scope(scratch);
    for (const Index n : {10, 70000, 5, 300000, 1}) scratch.take<float>(n);
  };
  round();
  const std::size_t before = test::allocations();
  const std::size_t held = scratch.capacity_bytes();
  for (int i = 0; i < 100; ++i) round();
  CHECK(test::allocations() == before);
  CHECK(scratch.capacity_bytes() == held);
}

TEST_CASE("when memory is refused, what was taken stays and the rest of the block is still there") {
  Scratch scratch;
  const ScratchScope scope(scratch);
  char* first = scratch.take<char>(64);
  for (std::size_t nth : {0u, 1u}) {
    const test::FailingAllocation failure(nth);
    CHECK_THROWS_AS(scratch.take<char>(1 << 20), std::bad_alloc);
  }
  CHECK(scratch.take<char>(64) == first + 64);
  CHECK(scratch.take<char>(1 << 20) != nullptr);
}

TEST_CASE("a count that no memory can hold is refused") {
  Scratch scratch;
  CHECK_THROWS_AS(scratch.take<float>(Index{1} << 62), std::bad_alloc);
  CHECK_THROWS_AS(scratch.take<float>(-1), std::bad_alloc);
  CHECK_THROWS_AS(scratch.matrix<float>(Index{1} << 40, Index{1} << 40), std::bad_alloc);
}

namespace {

// Blocks that are out, and their bytes.
int blocks_out = 0;
std::size_t bytes_out = 0, most_bytes = 0;

BlockSource counting(std::size_t limit) {
  most_bytes = limit;
  return {[](std::size_t bytes) {
            if (bytes_out + bytes > most_bytes) throw std::bad_alloc();
            ++blocks_out, bytes_out += bytes;
            return BlockSource{}.take(bytes);
          },
          [](std::byte* block, std::size_t bytes) noexcept {
            --blocks_out, bytes_out -= bytes;
            BlockSource{}.give_back(block, bytes);
          }};
}

}  // namespace

TEST_CASE("scratch memory comes from whoever is named, and all of it goes back") {
  {
    Scratch scratch(counting(std::size_t{4} << 20));
    std::memset(scratch.take<char>(100000), 1, 100000);
    std::memset(scratch.take<char>(3 << 20), 1, 3 << 20);
    CHECK(blocks_out == 2);
    CHECK(bytes_out == scratch.capacity_bytes());
    CHECK_THROWS_AS(scratch.take<char>(1 << 20), std::bad_alloc);
    CHECK(bytes_out == scratch.capacity_bytes());
  }
  CHECK(blocks_out == 0);
  CHECK(bytes_out == 0);
}

TEST_CASE("huge pages serve scratch memory of any size") {
  Scratch scratch(huge_pages());
  for (const Index n : {1, 65536, 1 << 20, (2 << 20) - 64, 2 << 20, (5 << 20) + 1}) {
    const ScratchScope scope(scratch);
    auto* data = scratch.take<unsigned char>(n);
    CHECK(reinterpret_cast<std::uintptr_t>(data) % kTensorAlignment == 0);
    std::memset(data, 7, static_cast<std::size_t>(n));
    CHECK(data[n - 1] == 7);
  }
  CHECK_THROWS_AS(scratch.take<char>(Index{1} << 60), std::bad_alloc);
}
