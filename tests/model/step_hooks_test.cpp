// What stands beside the model in a step: who chooses experts, who computes them.
#include <doctest/doctest.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "mixtral/model/transformer.hpp"
#include "support/compare.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/models.hpp"

using namespace mixtral;
using test::logits_of;

namespace {

constexpr Index kTokens = 7;

// Another thread that does what it is given, in order.
class Queue {
 public:
  ~Queue() {
    give({});
    thread_.join();
  }
  void give(std::function<void()> job) {
    const std::lock_guard guard(mutex_);
    jobs_.push_back(std::move(job));
    changed_.notify_all();
  }

 private:
  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return !jobs_.empty(); });
      const std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      if (!job) return;
      job();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  std::thread thread_{[this] { work(); }};
};

// Experts that are computed on that thread, as if they were somewhere else.
class FarExperts final : public moe::ExpertBackend {
 public:
  FarExperts(const Model& model, const KernelTable& table) : model_(model), table_(table) {}
  void run(const OpContext&, const moe::ExpertWork& work) override {
    CHECK(static_cast<Index>(work.rows.size()) == work.h.dim(0));
    bool done = false;
    std::exception_ptr error;
    std::mutex mutex;
    std::condition_variable changed;
    queue_.give([&] {
      try {
        SerialExecutor serial;
        Scratch scratch;
        const auto& experts = model_.weights.layers[static_cast<std::size_t>(work.layer)].experts;
        if (broken) throw Error(ErrorCode::kIo, str("layer ", work.layer, ": nobody answers"));
        moe::run_experts({table_, serial, scratch}, experts, work.plan, work.h, work.outputs, work.hook);
      } catch (...) {
        error = std::current_exception();
      }
      const std::lock_guard guard(mutex);
      done = true;
      changed.notify_all();
    });
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return done; });
    if (error) std::rethrow_exception(error);
  }
  bool broken = false;

 private:
  const Model& model_;
  const KernelTable& table_;
  Queue queue_;
};

// The model's own choice, seen.
class Watched final : public moe::RoutePolicy {
 public:
  void choose(const OpContext& ctx, Index layer, std::span<const RowInfo> rows, const moe::RouterOutput& out) override {
    for (const RowInfo& row : rows) seen += str(layer, ":", row.position, " ");
    moe::select_experts(ctx, {}, out);
  }
  std::string seen;
};

// Only the likelier expert, or none at an odd position.
class Fewer final : public moe::RoutePolicy {
 public:
  void choose(const OpContext& ctx, Index, std::span<const RowInfo> rows, const moe::RouterOutput& out) override {
    moe::select_experts(ctx, {}, out);
    for (std::size_t t = 0; t < rows.size(); ++t) {
      const auto row = static_cast<Index>(t);
      out.experts.row(row)[1] = moe::kNoExpert;
      out.weights.row(row)[0] = 1;
      if (rows[t].position % 2 == 1) out.experts.row(row)[0] = moe::kNoExpert;
    }
  }
};

}  // namespace

TEST_CASE("experts that another thread computes give the same bits, and its error ends the step") {
  const test::RandomModel m(test::small_config());
  test::SerialContext c(make_table(best_isa()));
  FarExperts far(m.model, c.op.table);
  StepHooks hooks;
  hooks.experts = &far;
  CHECK(logits_of(c.op, m.model, hooks) == logits_of(c.op, m.model, {}));
  far.broken = true;
  CHECK(test::error_of([&] { logits_of(c.op, m.model, hooks); }).code() == ErrorCode::kIo);
  far.broken = false;
  CHECK(logits_of(c.op, m.model, hooks) == logits_of(c.op, m.model, {}));
}

TEST_CASE("a policy sees each layer's rows, and the model's own choice by it gives the same bits") {
  const test::RandomModel m(test::small_config());
  test::SerialContext c(make_table(best_isa()));
  Watched watched;
  StepHooks hooks;
  hooks.routes = &watched;
  CHECK(logits_of(c.op, m.model, hooks) == logits_of(c.op, m.model, {}));
  CHECK(watched.seen == "0:0 0:1 0:2 0:3 0:4 1:0 1:1 1:2 1:3 1:4 0:5 1:5 0:6 1:6 ");
}

TEST_CASE("a policy that chooses fewer experts is the model with so many, and the observer sees what it left out") {
  ModelConfig config = test::small_config();
  const test::RandomModel two(config);
  Model one = two.model;
  one.config.n_experts_per_tok = 1;
  for (LayerWeights& layer : one.weights.layers) CHECK(layer.experts.size() == 8);
  test::SerialContext c(make_table(best_isa()));
  struct First final : moe::RoutePolicy {  // of two places, the likelier one alone
    void choose(const OpContext& ctx, Index, std::span<const RowInfo> rows, const moe::RouterOutput& out) override {
      moe::select_experts(ctx, {}, out);
      for (Index t = 0; t < static_cast<Index>(rows.size()); ++t) {
        out.experts.row(t)[1] = moe::kNoExpert;
        out.weights.row(t)[0] = 1;
      }
    }
  } first;
  StepHooks hooks;
  hooks.routes = &first;
  CHECK(logits_of(c.op, two.model, hooks) == logits_of(c.op, one, {}));

  struct Count : ForwardObserver {
    void on_routing(Index, const moe::RoutingView& r) override {
      for (Index t = 0; t < r.experts.dim(0); ++t) {
        for (const ExpertId e : r.experts.row_span(t)) e == moe::kNoExpert ? ++without : ++with;
      }
    }
    void on_expert(Index, const moe::ExpertRows& rows) override { computed += static_cast<Index>(rows.tokens.size()); }
    Index with = 0, without = 0, computed = 0;
  } count;
  Fewer fewer;
  hooks.routes = &fewer;
  hooks.observer = &count;
  const std::vector<float> logits = logits_of(c.op, two.model, hooks);
  CHECK(count.with == 2 * 4);  // layers, even positions
  CHECK(count.without == 2 * (2 * kTokens - 4));
  CHECK(count.computed == count.with);
  CHECK(logits != logits_of(c.op, one, {}));
}

TEST_CASE("a row's identity changes its own logits alone, as a model without the masked experts would") {
  const test::RandomModel m(test::small_config());
  test::SerialContext c(make_table(best_isa()));
  RoutingRules rules;
  for (std::int32_t layer = 0; layer < 2; ++layer) {
    for (ExpertId e = 0; e < 8; e += 2) rules.masked.push_back({layer, e});
  }
  const RoutingIdentity odd_ones(rules), idle;
  struct Masked final : moe::RoutePolicy {
    void choose(const OpContext& ctx, Index, std::span<const RowInfo>, const moe::RouterOutput& out) override {
      const std::uint8_t available[] = {0, 1, 0, 1, 0, 1, 0, 1};
      moe::select_experts(ctx, available, out);
    }
  } masked;
  StepHooks hooks;
  hooks.routes = &masked;
  const std::vector<float> want = logits_of(c.op, m.model, hooks), plain = logits_of(c.op, m.model, {});
  CHECK(want != plain);
  CHECK(logits_of(c.op, m.model, {}, &odd_ones) == want);
  CHECK(logits_of(c.op, m.model, {}, &idle) == plain);

  // Two sequences of one step, one with the rules, and a third that has three experts a token.
  const RoutingIdentity three(RoutingRules{.experts_per_token = 3});
  KvCache cache(kv_layout(m.model.config, DType::kF32), 4, 8), alone(kv_layout(m.model.config, DType::kF32), 4, 8);
  const std::vector<TokenId> tokens = {4, 9, 4, 9, 4, 9};
  const std::vector<Index> positions = {0, 1, 0, 1, 0, 1}, wanted = {1, 3, 5};
  const std::vector<const RoutingIdentity*> identities = {nullptr, nullptr, &odd_ones, &odd_ones, &three, &three};
  for (SlotId slot = 0; slot < 3; ++slot) {
    REQUIRE(cache.open() == slot);
    cache.reserve(slot, 2);
  }
  Forward forward;
  Matrix<float> together(Shape<2>{{3, 50}}), one(Shape<2>{{1, 50}});
  const std::vector<SlotId> of_each = {0, 0, 1, 1, 2, 2};
  forward(c.op, m.model, {tokens, positions, of_each, wanted, identities}, cache, together.view());
  for (std::size_t s = 0; s < 3; ++s) {
    const SlotId slot = alone.open();
    alone.reserve(slot, 2);
    const std::vector<SlotId> own = {slot, slot};
    const Index last[] = {1};
    const auto part = [&](const auto& all) { return std::span(all).subspan(2 * s, 2); };
    forward(c.op, m.model, {part(tokens), part(positions), own, last, part(identities)}, alone, one.view());
    CHECK(test::same_bits(one.span(), together.view().row_span(static_cast<Index>(s))));
  }
  CHECK_FALSE(test::same_bits(together.view().row_span(0), together.view().row_span(1)));
  // Another policy's rows have the places that it asks for, whoever is beside them.
  Watched watched;
  hooks.routes = &watched;
  CHECK(logits_of(c.op, m.model, hooks, &three) == plain);
  CHECK_FALSE(test::same_bits(together.view().row_span(0), together.view().row_span(2)));
}

TEST_CASE("identities for another model, or with adapters, are refused before anything is computed") {
  const test::RandomModel m(test::small_config());
  test::SerialContext c;
  const auto refuse = [&](const RoutingRules& rules) {
    const RoutingIdentity identity(rules);
    return test::error_of([&] { logits_of(c.op, m.model, {}, &identity); });
  };
  CHECK(test::names(refuse({.masked = {{2, 0}}}), "3 layers"));
  CHECK(test::names(refuse({.masked = {{0, 8}}}), "9 experts"));
  CHECK(test::names(refuse({.experts_per_token = 9}), "9 experts"));
  CHECK(refuse({.adapters = {{1, 1.0f}}}).code() == ErrorCode::kUnsupported);
  RoutingRules all;
  for (ExpertId e = 0; e < 8; ++e) all.masked.push_back({1, e});
  CHECK(test::names(refuse(all), "masks all 8 experts"));
}

TEST_CASE("a cancelled step ends within a layer, and nothing has changed") {
  const test::RandomModel m(test::small_config());
  test::SerialContext c(make_table(best_isa()));
  CancelFlag cancel;
  struct Cancels : ForwardObserver {
    explicit Cancels(CancelFlag& f) : flag(f) {}
    void on_layer(Index layer, TensorView<const float, 2>) override {
      ++layers;
      if (layer == at) flag.set();
    }
    CancelFlag& flag;
    Index at = 0;
    int layers = 0;
  } observer(cancel);
  StepHooks hooks(&observer);
  hooks.cancel = &cancel;
  CHECK(test::error_of([&] { logits_of(c.op, m.model, hooks); }).code() == ErrorCode::kCancelled);
  CHECK(observer.layers == 1);
  CHECK(test::error_of([&] { logits_of(c.op, m.model, hooks); }).code() ==
        ErrorCode::kCancelled);  // until it is cleared
  CHECK(observer.layers == 1);
  cancel.clear();
  observer.at = 1;  // in the last layer
  CHECK(test::error_of([&] { logits_of(c.op, m.model, hooks); }).code() == ErrorCode::kCancelled);
  CHECK(observer.layers == 3);
  cancel.clear();
  hooks.observer = nullptr;
  CHECK(logits_of(c.op, m.model, hooks) == logits_of(c.op, m.model, {}));
}

TEST_CASE("the clock is told of each row of each matrix that a step multiplies by, once") {
  const test::RandomModel dense(test::small_config());
  const test::PackedModel packed(dense.model, DType::kP8, DType::kP4);
  struct Clock final : TaskClock {
    void on_task(const TaskTime& task) noexcept override {
      const std::lock_guard guard(mutex);
      rows[slot_name(task.slot)] += task.rows * task.tokens;
      sane = sane && task.ns >= 0 && task.begin_ns > 0 && task.worker >= 0 && task.worker < 3;
    }
    std::mutex mutex;
    std::map<std::string, Index> rows;
    bool sane = true;
  };
  struct Count : ForwardObserver {
    void on_expert(Index layer, const moe::ExpertRows& e) override {
      tokens[str("layers.", layer, ".experts.", e.expert)] += std::ssize(e.tokens);
    }
    std::map<std::string, Index> tokens;
  };
  for (const Model* model : {&dense.model, &packed.model}) {
    test::for_each_executor([&](Executor& executor) {
      Clock clock;
      Count count;
      Scratch scratch;
      const KernelTable table = make_table(best_isa());
      const OpContext op{table, executor, scratch};
      StepHooks hooks(&count);
      hooks.clock = &clock;
      CHECK(logits_of(op, *model, hooks) == logits_of(op, *model, {}));
      std::map<std::string, Index> want;
      for_each_tensor(model->config, [&](const TensorSlot& slot, const Shape<2>& shape) {
        if (is_vector(slot.kind) || slot.kind == TensorKind::kEmbedding || slot.kind == TensorKind::kW3) return;
        Index tokens = slot.kind == TensorKind::kHead ? 3 : kTokens;
        if (slot.expert >= 0) tokens = count.tokens[str("layers.", slot.layer, ".experts.", slot.expert)];
        if (tokens > 0) want[slot_name(slot)] = shape[0] * tokens;
      });
      CHECK(clock.rows == want);
      CHECK(clock.sane);
    });
  }
}
