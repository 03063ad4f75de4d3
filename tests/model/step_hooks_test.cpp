// What stands beside the model in a step: who chooses experts, who computes them.
#include <doctest/doctest.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "mixtral/model/transformer.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/models.hpp"

using namespace mixtral;

namespace {

constexpr Index kTokens = 7;

// Logits of some tokens of one sequence, a prompt and then one by one.
std::vector<float> logits_of(const OpContext& ctx, const Model& model, const StepHooks& hooks) {
  const std::vector<TokenId> tokens = {4, 9, 7, 1, 30, 2, 11};
  KvCache cache(kv_layout(model.config, DType::kBF16), 1, 4);
  const SlotId slot = cache.open();
  Forward forward;
  std::vector<float> all;
  for (const auto& [begin, n] : {std::pair<Index, Index>{0, 5}, {5, 1}, {6, 1}}) {
    std::vector<Index> positions, wanted = {n - 1};
    for (Index p = begin; p < begin + n; ++p) positions.push_back(p);
    const std::vector<SlotId> slots(static_cast<std::size_t>(n), slot);
    Matrix<float> logits(Shape<2>{{1, model.config.vocab_size}});
    cache.reserve(slot, n);
    forward(ctx, model,
            {std::span(tokens).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(n)), positions, slots,
             wanted},
            cache, logits.view(), hooks);
    cache.commit(slot, n);
    all.insert(all.end(), logits.data(), logits.data() + logits.size());
  }
  return all;
}

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
  void run(const OpContext&, Index layer, std::span<const RowInfo> rows, const DispatchPlan& plan,
           TensorView<const float, 2> h, TensorView<float, 2> outputs, const moe::ExpertHook* hook) override {
    CHECK(static_cast<Index>(rows.size()) == h.dim(0));
    bool done = false;
    std::exception_ptr error;
    std::mutex mutex;
    std::condition_variable changed;
    queue_.give([&] {
      try {
        SerialExecutor serial;
        Scratch scratch;
        const auto& experts = model_.weights.layers[static_cast<std::size_t>(layer)].experts;
        if (broken) throw Error(ErrorCode::kIo, str("layer ", layer, ": nobody answers"));
        moe::run_experts({table_, serial, scratch}, experts, plan, h, outputs, hook);
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
  void choose(const OpContext& ctx, Index layer, std::span<const RowInfo> rows, const RouterOutput& out) override {
    for (const RowInfo& row : rows) seen += str(layer, ":", row.position, " ");
    moe::select_experts(ctx, {}, out);
  }
  std::string seen;
};

// Only the likelier expert, or none at an odd position.
class Fewer final : public moe::RoutePolicy {
 public:
  void choose(const OpContext& ctx, Index, std::span<const RowInfo> rows, const RouterOutput& out) override {
    moe::select_experts(ctx, {}, out);
    for (std::size_t t = 0; t < rows.size(); ++t) {
      const auto row = static_cast<Index>(t);
      out.experts.row(row)[1] = kNoExpert;
      out.weights.row(row)[0] = 1;
      if (rows[t].position % 2 == 1) out.experts.row(row)[0] = kNoExpert;
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
    void choose(const OpContext& ctx, Index, std::span<const RowInfo> rows, const RouterOutput& out) override {
      moe::select_experts(ctx, {}, out);
      for (Index t = 0; t < static_cast<Index>(rows.size()); ++t) {
        out.experts.row(t)[1] = kNoExpert;
        out.weights.row(t)[0] = 1;
      }
    }
  } first;
  StepHooks hooks;
  hooks.routes = &first;
  CHECK(logits_of(c.op, two.model, hooks) == logits_of(c.op, one, {}));

  struct Count : ForwardObserver {
    void on_routing(Index, const RoutingView& r) override {
      for (Index t = 0; t < r.experts.dim(0); ++t) {
        for (const ExpertId e : r.experts.row_span(t)) e == kNoExpert ? ++without : ++with;
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
