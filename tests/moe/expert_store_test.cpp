// Stores that a backend takes experts from: how they come, how long they stay, what happens if they do not.
#include "mixtral/moe/expert_store.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "mixtral/moe/expert_backend.hpp"
#include "support/compare.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/models.hpp"

using namespace mixtral;
using test::logits_of;

namespace {

// Experts that are brought into a room for one of them, the last one first, and are gone when the lease ends.
class OneAtATime final : public moe::ExpertStore {
 public:
  explicit OneAtATime(const Model& model) : model_(model) {}

  moe::ExpertLease acquire(const moe::ExpertRequest& request) override {
    CHECK(leases == 0);
    const moe::ExpertKey key = request.wanted.back();
    const moe::ExpertWeights& at_home =
        model_.weights.layers[static_cast<std::size_t>(request.layer)].experts[static_cast<std::size_t>(key.expert)];
    here_ = at_home;
    room_.clear();
    for (MatrixView* w : {&here_.w1, &here_.w2, &here_.w3}) {
      if (w->part == PanelPart::kSecond) continue;  // lies with its other half
      room_.emplace_back(w->data, w->data + w->storage_bytes());
      w->data = room_.back().data();
    }
    if (here_.w3.part == PanelPart::kSecond) here_.w3.data = here_.w1.data;
    ++leases, ++taken;
    request.room[0] = {key, &here_};
    return moe::ExpertLease(request.room.first(1), this);
  }
  Index leases = 0, taken = 0;

 private:
  void release(std::span<const moe::LeasedExpert> experts) noexcept override {
    leases -= std::ssize(experts);
    for (auto& bytes : room_) std::fill(bytes.begin(), bytes.end(), std::byte{0xff});  // NaN
  }

  const Model& model_;
  moe::ExpertWeights here_;
  std::vector<std::vector<std::byte>> room_;
};

// Versions of one layer's experts, each with its own memory: the newest is the current one, and an older one stays
// while it is leased.
class Published final : public moe::ExpertStore {
 public:
  ExpertVersion publish(ExpertId expert, const moe::ExpertWeights& weights) {
    const std::lock_guard guard(mutex_);
    const ExpertVersion version = ++newest_[expert];
    entries_.emplace(moe::ExpertKey{expert, version}, Entry{weights});
    drop_unused();
    return version;
  }
  moe::ExpertLease acquire(const moe::ExpertRequest& request) override {
    const std::lock_guard guard(mutex_);
    std::size_t n = 0;
    for (const moe::ExpertKey& key : request.wanted) {
      const auto entry =
          entries_.find({key.expert, key.version == kCurrentVersion ? newest_[key.expert] : key.version});
      if (entry == entries_.end()) {
        throw moe::ExpertError(ErrorCode::kNotFound, request.layer, key, "no such version");
      }
      ++entry->second.leases;
      request.room[n++] = {key, &entry->second.weights};
    }
    return moe::ExpertLease(request.room, this);
  }
  bool keep_all = false;  // also those that nobody has leased

 private:
  struct Entry {
    moe::ExpertWeights weights;
    Index leases = 0;
  };
  void release(std::span<const moe::LeasedExpert> experts) noexcept override {
    const std::lock_guard guard(mutex_);
    for (auto& [key, entry] : entries_) {
      for (const moe::LeasedExpert& leased : experts) entry.leases -= leased.weights == &entry.weights ? 1 : 0;
    }
    drop_unused();
  }
  void drop_unused() {
    if (keep_all) return;
    std::erase_if(entries_,
                  [&](const auto& e) { return e.second.leases == 0 && e.first.version != newest_[e.first.expert]; });
  }

  std::mutex mutex_;
  std::map<ExpertId, ExpertVersion> newest_;
  std::map<moe::ExpertKey, Entry> entries_;
};

// An expert with memory of its own.
moe::ExpertWeights owned_expert(test::Random& random, Index dim, Index hidden_dim) {
  const auto store = std::make_shared<test::Store>();
  moe::ExpertWeights w{store->add(random, DType::kBF16, hidden_dim, dim, 0.3),
                       store->add(random, DType::kF32, dim, hidden_dim, 0.3),
                       store->add(random, DType::kBF16, hidden_dim, dim, 0.3)};
  w.owner = store;
  return w;
}

moe::ExpertLease lease(moe::ExpertStore& store, const std::vector<moe::ExpertKey>& wanted,
                       std::vector<moe::LeasedExpert>& room) {
  room.resize(wanted.size());
  static const CancelFlag never;
  return store.acquire({.layer = 0, .wanted = wanted, .room = room, .cancel = never});
}

}  // namespace

TEST_CASE("experts that come one at a time, the last one first, give the same bits, and each lease ends") {
  const test::RandomModel dense(test::small_config());
  const test::PackedModel packed(dense.model, DType::kP4, DType::kP8);
  for (const Model* model : {&dense.model, &packed.model}) {
    test::for_each_context([&](const OpContext& op) {
      OneAtATime store(*model);
      moe::LocalExperts backend(store);
      StepHooks hooks;
      hooks.experts = &backend;
      CHECK(logits_of(op, *model, hooks) == logits_of(op, *model, {}));
      CHECK(store.leases == 0);
      CHECK(store.taken >= 2 * 3 * 2);  // layers, steps, experts at least
    });
  }
}

TEST_CASE("a lease outlives the publishing of a new version, and the old one's memory ends with it") {
  test::Random random(401);
  test::SerialContext c;
  Published store;
  moe::ExpertWeights first = owned_expert(random, 16, 24);
  const std::weak_ptr<const void> memory = first.owner;
  CHECK(store.publish(3, std::exchange(first, {})) == 1);
  const auto x = random.matrix<float>(2, 16);
  const auto output_of = [&](const moe::ExpertWeights& w) {
    Matrix<float> y(x.shape());
    moe::expert_ffn(c.op, w, x.view(), y.view());
    return y;
  };
  std::vector<moe::LeasedExpert> old_room, new_room;
  {
    moe::ExpertLease old_lease = lease(store, {{3}}, old_room);
    const Matrix<float> before = output_of(*old_lease.experts()[0].weights);
    std::thread([&] { CHECK(store.publish(3, owned_expert(random, 16, 24)) == 2); }).join();
    const moe::ExpertLease new_lease = lease(store, {{3}}, new_room);
    CHECK(test::same_bits(output_of(*old_lease.experts()[0].weights), before));
    CHECK_FALSE(test::same_bits(output_of(*new_lease.experts()[0].weights), before));
    const moe::ExpertLease moved = std::move(old_lease);
    CHECK_FALSE(memory.expired());
  }
  CHECK(memory.expired());
  CHECK(test::error_of([&] { lease(store, {{3, 1}}, old_room); }).code() == ErrorCode::kNotFound);
}

TEST_CASE("two versions of one expert serve one step, each for the rows that are theirs") {
  constexpr Index kRows = 6, kDim = 16;
  test::Random random(402);
  Published store;
  store.keep_all = true;
  for (ExpertId e = 0; e < 4; ++e) store.publish(e, owned_expert(random, kDim, 24));
  store.publish(2, owned_expert(random, kDim, 24));
  const auto h = random.matrix<float>(kRows, kDim), logits = random.matrix<float>(kRows, 4),
             x0 = random.matrix<float>(kRows, kDim);
  const RoutingIdentity old_two(RoutingRules{.biases = {{{0, 2}, 4}}, .versions = {{{0, 2}, 1}}}),
      new_two(RoutingRules{.biases = {{{0, 2}, 4}}});
  test::for_each_context([&](const OpContext& op) {
    moe::LocalExperts backend(store);
    const CancelFlag never;
    const auto run = [&](Index begin, Index count) {  // odd rows have the old expert 2
      std::vector<RowInfo> rows;
      for (Index t = begin; t < begin + count; ++t) rows.push_back({0, t, t % 2 == 1 ? &old_two : &new_two});
      Matrix<float> weights(Shape<2>{{count, 2}}), x(Shape<2>{{count, kDim}}), own(Shape<2>{{count, 4}});
      Matrix<ExpertId> experts(weights.shape());
      Matrix<ExpertVersion> versions(weights.shape());
      std::copy_n(logits.row(begin), own.size(), own.data());
      std::copy_n(x0.row(begin), x.size(), x.data());
      const moe::RouterOutput routing{own.view(), experts.view(), weights.view(), versions.view()};
      moe::TopK(2).choose(op, 0, rows, routing);
      for (Index t = 0; t < count; ++t) CHECK(experts.row(t)[0] == 2);
      moe::DispatchPlan plan;
      const moe::LayerCall call{.layer = 0, .rows = rows, .n_experts = 4, .experts = backend, .cancel = never};
      moe::moe_layer(op, call, routing, plan, h.view().rows(begin, count), x.view());
      if (count == kRows) CHECK(plan.rows_of(2) == kRows);
      return x;
    };
    const Matrix<float> all = run(0, kRows);
    for (Index t = 0; t < kRows; ++t) CHECK(test::same_bits(run(t, 1).span(), all.view().row_span(t)));
    std::vector<moe::LeasedExpert> room;  // and they are the two versions' own outputs
    const moe::ExpertLease both = lease(store, {{2, 1}, {2, 2}}, room);
    CHECK(both.experts()[0].weights != both.experts()[1].weights);
  });
}

TEST_CASE("a store's failure names layer and expert and ends the step, and so does a store that is wrong") {
  const test::RandomModel m(test::small_config());
  test::SerialContext c(make_table(best_isa()));
  struct Broken final : moe::ExpertStore {
    moe::ExpertLease acquire(const moe::ExpertRequest& request) override {
      if (answer == 0) throw moe::ExpertError(ErrorCode::kIo, request.layer, request.wanted[0], "the disk is gone");
      if (answer == 1) return moe::ExpertLease(request.room.first(0));
      request.room[0] = {{request.wanted[0].expert, answer == 2 ? 9 : kCurrentVersion}, &weights};
      for (std::size_t i = 1; i < request.room.size(); ++i) request.room[i] = request.room[0];
      return moe::ExpertLease(request.room);
    }
    int answer = 0;
    moe::ExpertWeights weights;
  } store;
  store.weights = m.model.weights.layers[0].experts[0];
  moe::LocalExperts backend(store);
  StepHooks hooks;
  hooks.experts = &backend;
  try {
    logits_of(c.op, m.model, hooks);
    FAIL("nothing was thrown");
  } catch (const moe::ExpertError& error) {
    CHECK(error.code() == ErrorCode::kIo);
    CHECK(error.layer() == 0);
    CHECK(test::names(error, str("layer 0, expert ", error.key().expert, ": the disk is gone")));
  }
  for (store.answer = 1; store.answer <= 3; ++store.answer) {
    CHECK(test::error_of([&] { logits_of(c.op, m.model, hooks); }).code() == ErrorCode::kInternal);
  }
  // In memory there are no other versions, and the model's own go on.
  const RoutingIdentity other(
      RoutingRules{.masked = {{0, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 4}, {0, 5}}, .versions = {{{0, 6}, 2}, {{0, 7}, 2}}});
  CHECK(test::names(test::error_of([&] { logits_of(c.op, m.model, {}, &other); }), "(version 2)"));
  CHECK(logits_of(c.op, m.model, {}).size() == 150);
}

TEST_CASE("who waits for an expert is cancelled, and the step with it") {
  const test::RandomModel m(test::small_config());
  test::SerialContext c(make_table(best_isa()));
  struct Slow final : moe::ExpertStore {
    moe::ExpertLease acquire(const moe::ExpertRequest& request) override {
      waits = true;
      for (;;) {
        request.cancel.check();
        std::this_thread::yield();
      }
    }
    std::atomic<bool> waits = false;
  } store;
  moe::LocalExperts backend(store);
  CancelFlag cancel;
  StepHooks hooks;
  hooks.experts = &backend;
  hooks.cancel = &cancel;
  std::thread other([&] {
    while (!store.waits) std::this_thread::yield();
    cancel.set();
  });
  CHECK(test::error_of([&] { logits_of(c.op, m.model, hooks); }).code() == ErrorCode::kCancelled);
  other.join();
  cancel.clear();
  hooks.experts = nullptr;
  CHECK(logits_of(c.op, m.model, hooks) == logits_of(c.op, m.model, {}));
}
