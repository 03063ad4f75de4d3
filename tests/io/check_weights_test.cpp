#include "mixtral/io/check_weights.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "mixtral/core/thread_executor.hpp"
#include "support/models.hpp"

namespace mixtral {
namespace {

// Of a random matrix.
void set(const MatrixView& w, Index row, Index col, float value) {
  auto* at = const_cast<std::byte*>(w.row(row)) + col * size_of(w.dtype);
  const bf16 narrow = to_bf16(value);
  w.dtype == DType::kF32 ? std::memcpy(at, &value, sizeof value) : std::memcpy(at, &narrow, sizeof narrow);
}

}  // namespace

TEST_CASE("sound weights have nothing to tell, packed or not") {
  test::RandomModel random(test::small_config());
  SerialExecutor serial;
  CHECK(check_weights(random.model, serial).empty());
  const test::PackedModel packed(random.model, DType::kP4, DType::kP8);
  CHECK(check_weights(packed.model, serial).empty());
}

TEST_CASE("each tensor is told once, in the model's order, with its first number, by any number of workers") {
  test::RandomModel random(test::small_config());
  test::Random values(3);
  const Index rows = 3000, cols = 1000;  // some pieces
  random.model.weights.embedding = random.store.add(values, DType::kF32, rows, cols);
  random.model.weights.layers[1].experts[6].w2 = random.store.add(values, DType::kBF16, 2, 3);
  set(random.model.weights.layers[1].experts[6].w2, 1, 0, std::numeric_limits<float>::infinity());
  for (const Index row : {2999, 17, 1500}) set(random.model.weights.embedding, row, row % 1000, NAN);

  ThreadExecutor three(3);
  SerialExecutor serial;
  for (Executor* executor : {static_cast<Executor*>(&serial), static_cast<Executor*>(&three)}) {
    Index last = 0, calls = 0, all = 0;
    const auto found = check_weights(random.model, *executor, [&](Index done, Index of) {
      CHECK(done > last);
      last = done;
      all = of;
      ++calls;
    });
    CHECK(last == all);
    CHECK(all == weight_bytes(random.model));
    CHECK(calls > 12);
    REQUIRE(found.size() == 2);
    CHECK(found[0].name == "embedding");
    CHECK(found[0].count == 3);
    CHECK(found[0].row == 17);
    CHECK(found[0].col == 17);
    CHECK(std::isnan(found[0].value));
    CHECK(found[1].name == "layers.1.experts.6.w2");
    CHECK(found[1].count == 1);
    CHECK(found[1].row == 1);
    CHECK(found[1].col == 0);
  }
}

}  // namespace mixtral
