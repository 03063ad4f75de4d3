#include "mixtral/model/transformer.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "support/allocations.hpp"
#include "support/budgets.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/models.hpp"

using namespace mixtral;
using test::Host;

namespace {

// Two layers deep: each adds the errors of its dot products to a residual stream of a few units.
constexpr test::Budget kSmallModel{"a small model in float32", 1e-4, 1e-4};

ModelConfig config_of(Index dim, Index n_heads, Index n_kv_heads, Index head_dim, Index n_experts, Index k) {
  ModelConfig c = test::small_config();
  c.dim = dim;
  c.n_heads = n_heads;
  c.n_kv_heads = n_kv_heads;
  c.head_dim = head_dim;
  c.n_experts = n_experts;
  c.n_experts_per_tok = k;
  return c;
}

// Four times a context of 32, of which some pairs turn less than beta_slow times, some more than beta_fast, some
// neither.
RopeScaling yarn_of_32() {
  return {.kind = RopeScaling::Kind::kYarn,
          .factor = 4,
          .attention_factor = static_cast<float>(yarn_attention_factor(4)),
          .original_max_positions = 32,
          .beta_fast = 3,
          .beta_slow = 0.5f};
}

struct NamedConfig {
  std::string name;
  ModelConfig config;
};

std::vector<NamedConfig> configs() {
  std::vector<NamedConfig> out = {
      {"grouped, 8 experts top 2", test::small_config()},
      {"explicit head_dim, multi-query, 3 experts top 3, tied", config_of(40, 3, 1, 16, 3, 3)},
      {"head_dim 10, full attention, 1 expert, window 16", config_of(24, 6, 6, 10, 1, 1)},
      {"head_dim 2, multi-query, 17 experts top 2, window 1, interleaved", config_of(16, 5, 1, 2, 17, 2)},
      {"head_dim 34, 8 experts top 1, window 33, tied", config_of(48, 2, 2, 34, 8, 1)},
      {"odd dim, 8 experts top 3, window 31", config_of(33, 4, 2, 16, 8, 3)},
      {"yarn, interleaved", config_of(32, 4, 2, 16, 4, 2)},
  };
  out[1].config.tied_embeddings = out[4].config.tied_embeddings = true;
  out[2].config.sliding_window = 16;
  out[3].config.sliding_window = 1;
  out[3].config.rope_pairing = RopePairing::kInterleaved;
  out[4].config.sliding_window = 33;
  out[5].config.sliding_window = 31;
  out[6].config.rope_pairing = RopePairing::kInterleaved;
  out[6].config.rope_theta = 100;
  out[6].config.rope_scaling = yarn_of_32();
  return out;
}

template <class F>
void for_each_config(F&& f) {
  for (const NamedConfig& c : configs()) {
    const std::string config_name = c.name;
    CAPTURE(config_name);
    test::Random random(91);
    const test::RandomModel m(c.config);
    f(m.model, test::random_tokens(random, 70, c.config));
  }
}

// Logits of all positions, the whole sequence in one step.
Matrix<float> run_whole(const Model& model, const std::vector<TokenId>& tokens, const KernelTable& table,
                        Executor& executor) {
  Host host(model, table, executor);
  const std::size_t s = host.add(tokens);
  host.step({{s, static_cast<Index>(tokens.size())}});
  Matrix<float> out(host.logits(s).shape());
  std::copy_n(host.logits(s).data(), out.size(), out.data());
  return out;
}
Matrix<float> run_reference(const Model& model, const std::vector<TokenId>& tokens) {
  SerialExecutor serial;
  return run_whole(model, tokens, test::reference_table(), serial);
}

// Throws at the call with this number.
class ThrowingObserver final : public ForwardObserver {
 public:
  explicit ThrowingObserver(int at) : at_(at) {}
  void on_embedding(TensorView<const float, 2>) override { count(); }
  void on_attention(Index, TensorView<const float, 2>) override { count(); }
  void on_routing(Index, const moe::RoutingView&) override { count(); }
  void on_layer(Index, TensorView<const float, 2>) override { count(); }
  void on_final_norm(TensorView<const float, 2>) override { count(); }

 private:
  void count() {
    if (at_-- == 0) throw std::runtime_error("observer");
  }
  int at_;
};

}  // namespace

TEST_CASE("the forward pass agrees with the double oracle, for every kind of model") {
  for_each_config([](const Model& model, const std::vector<TokenId>& tokens) {
    const auto want = test::forward_oracle(model, tokens);
    test::for_each_table_and_native([&](const KernelTable& table) {
      SerialExecutor serial;
      test::check_close(run_whole(model, tokens, table, serial), want, kSmallModel);
    });
  });
}

TEST_CASE("scaled RoPE changes the logits, linear by a factor of 1 no bit") {
  using Kind = RopeScaling::Kind;
  ModelConfig config = test::small_config();
  config.rope_theta = 100;
  test::Random random(95);
  const std::vector<TokenId> tokens = test::random_tokens(random, 40, config);
  const auto logits = [&](const RopeScaling& scaling) {
    config.rope_scaling = scaling;
    return run_reference(test::RandomModel(config).model, tokens);
  };
  const auto plain = logits({});
  CHECK(test::same_bits(logits({.kind = Kind::kLinear}), plain));
  const auto linear = logits({.kind = Kind::kLinear, .factor = 4});
  const auto yarn = logits(yarn_of_32());
  CHECK(test::relative_error(linear, plain) > 1e-3);
  CHECK(test::relative_error(yarn, plain) > 1e-3);
  CHECK(test::relative_error(yarn, linear) > 1e-3);
}

TEST_CASE("every table gives the same bits, however the prompt is split") {
  for_each_config([](const Model& model, const std::vector<TokenId>& tokens) {
    const auto want = run_reference(model, tokens);
    test::Random random(92);
    test::for_each_table([&](const KernelTable& table) {
      SerialExecutor serial;
      CHECK(test::same_bits(run_whole(model, tokens, table, serial), want));
      for (const Index longest : {1, 5, 40}) {
        CAPTURE(longest);
        Host host(model, table, serial);
        const std::size_t s = host.add(tokens);
        while (!host.done(s)) host.step({{s, random.index(1, std::min(longest, host.left(s)))}});
        CHECK(test::same_bits(host.logits(s), want));
      }
    });
  });
}

TEST_CASE("a sequence has the same bits alone and in any batch") {
  for_each_config([](const Model& model, const std::vector<TokenId>& tokens) {
    const std::vector<std::vector<TokenId>> sequences = {
        tokens, {tokens.begin(), tokens.begin() + 5}, {tokens.rbegin(), tokens.rbegin() + 37}};
    std::vector<Matrix<float>> want;
    for (const auto& sequence : sequences) want.push_back(run_reference(model, sequence));
    test::Random random(93);
    test::for_each_table([&](const KernelTable& table) {
      for (const bool interleaved : {false, true}) {
        CAPTURE(interleaved);
        SerialExecutor serial;
        Host host(model, table, serial);
        for (const auto& sequence : sequences) host.add(sequence);
        while (!(host.done(0) && host.done(1) && host.done(2))) {
          std::vector<test::Piece> pieces;
          for (const std::size_t s : {2u, 0u, 1u}) {
            if (!host.done(s)) pieces.push_back({s, random.index(0, std::min<Index>(12, host.left(s)))});
          }
          host.step(pieces, interleaved);
        }
        for (std::size_t s = 0; s < 3; ++s) CHECK(test::same_bits(host.logits(s), want[s]));
      }
    });
  });
}

TEST_CASE("any number of workers of any kind gives the same bits, and more than one of them works") {
  // Wide enough for several tasks in each matrix product.
  ModelConfig c = config_of(32, 8, 4, 64, 8, 2);
  c.hidden_dim = 600;
  c.vocab_size = 1500;
  const test::RandomModel m(c);
  test::Random random(94);
  const auto tokens = test::random_tokens(random, 20, c);
  const auto want = run_reference(m.model, tokens);

  // Notes who works. The caller's worker takes its time until another has come, so that one does come.
  class Watched final : public Executor {
   public:
    explicit Watched(Executor& inner) : inner_(inner) {}
    int n_workers() const noexcept override { return inner_.n_workers(); }
    bool shared() const noexcept { return shared_; }
    void parallel_for(Index n_tasks, Task task) override {
      inner_.parallel_for(n_tasks, [&](Index i, int worker) {
        if (worker > 0) shared_ = true;
        if (n_workers() > 1 && !shared_) std::this_thread::sleep_for(std::chrono::microseconds(200));
        task(i, worker);
      });
    }

   private:
    Executor& inner_;
    std::atomic<bool> shared_{false};
  };
  const KernelTable table = make_table(best_isa());
  test::for_each_executor([&](Executor& executor) {
    Watched watched(executor);
    CHECK(test::same_bits(run_whole(m.model, tokens, table, watched), want));
    CHECK(watched.shared() == (executor.n_workers() > 1));
  });
}

TEST_CASE("an exception in the middle of a step, roll back, and a second try gives the same bits") {
  const test::RandomModel m(test::small_config());
  test::Random random(95);
  const auto tokens = test::random_tokens(random, 40, m.model.config);
  const auto want = run_reference(m.model, tokens);
  test::for_each_table([&](const KernelTable& table) {
    SerialExecutor serial;
    for (int at = 0; at < 8; ++at) {
      CAPTURE(at);
      Host host(m.model, table, serial);
      const std::size_t s = host.add(tokens);
      host.step({{s, 25}});
      ThrowingObserver observer(at);
      CHECK_THROWS_WITH(host.step({{s, 15}}, false, &observer), "observer");
      CHECK(host.length(s) == 25);
      host.step({{s, 15}});
      CHECK(test::same_bits(host.logits(s), want));
    }
  });
}

TEST_CASE("memory refused anywhere in a step, roll back, and a second try gives the same bits") {
  const test::RandomModel m(test::small_config());
  test::Random random(96);
  const auto tokens = test::random_tokens(random, 40, m.model.config);
  const auto want = run_reference(m.model, tokens);
  const KernelTable table = make_table(best_isa());
  SerialExecutor serial;
  for (std::size_t nth = 0;; ++nth) {
    Host host(m.model, table, serial);
    const std::size_t s = host.add(tokens);
    bool refused = false;
    {
      const test::FailingAllocation failure(nth);
      try {
        host.step({{s, 40}});
      } catch (const std::bad_alloc&) {
        refused = true;
      }
    }
    if (!refused) {
      CHECK(nth > 5);
      break;
    }
    CHECK(host.length(s) == 0);
    host.step({{s, 40}});
    CHECK(test::same_bits(host.logits(s), want));
  }
}

TEST_CASE("after truncation a sequence goes on as if the tail had never been") {
  ModelConfig c = test::small_config();
  c.sliding_window = 20;
  const test::RandomModel m(c);
  test::Random random(97);
  const auto tokens = test::random_tokens(random, 70, c);
  const auto want = run_reference(m.model, tokens);
  SerialExecutor serial;
  const KernelTable table = make_table(best_isa());
  Host host(m.model, table, serial);
  const std::size_t s = host.add(tokens);
  for (const Index back : {50, 33, 32, 31, 1, 0}) {
    host.step({{s, host.left(s)}});
    host.truncate(s, back);
  }
  host.step({{s, 70}});
  CHECK(test::same_bits(host.logits(s), want));
}

TEST_CASE("steady decoding allocates nothing") {
  const test::RandomModel m(test::small_config());
  test::Random random(98);
  SerialExecutor serial;
  const KernelTable table = make_table(best_isa());
  Host host(m.model, table, serial);
  const std::size_t a = host.add(test::random_tokens(random, 30, m.model.config));
  const std::size_t b = host.add(test::random_tokens(random, 30, m.model.config));
  host.step({{a, 5}, {b, 1}});
  host.step({{a, 1}, {b, 1}});
  const std::size_t before = test::allocations();
  const std::vector<test::Piece> pieces = {{a, 1}, {b, 1}};
  const std::size_t with_pieces = test::allocations();
  for (int i = 0; i < 20; ++i) host.step(pieces);
  CHECK(test::allocations() == with_pieces);
  CHECK(with_pieces == before + 1);
}

TEST_CASE("the observer sees the steps of the model in order, with their shapes") {
  class Recorder final : public ForwardObserver {
   public:
    void on_embedding(TensorView<const float, 2> x) override { log += str("embedding", shape_text(x.shape()), " "); }
    void on_attention_norm(Index l, TensorView<const float, 2> h) override {
      log += str("h", l, shape_text(h.shape()), " ");
    }
    void on_attended(Index l, TensorView<const float, 2> x) override {
      log += str("attended", l, shape_text(x.shape()), " ");
    }
    void on_attention(Index l, TensorView<const float, 2> x) override {
      log += str("attention", l, shape_text(x.shape()), " ");
    }
    void on_expert(Index, const moe::ExpertRows& rows) override {
      CHECK(rows.expert > last_expert);
      last_expert = rows.expert;
      CHECK(rows.h.shape() == Shape<2>{{3, 32}});
      CHECK(rows.hidden.shape() == Shape<2>{{static_cast<Index>(rows.tokens.size()), 48}});
      expert_rows += rows.tokens.size();
    }
    void on_routing(Index l, const moe::RoutingView& r) override {
      last_expert = -1;
      log += str("routing", l, shape_text(r.logits.shape()), shape_text(r.experts.shape()),
                 shape_text(r.weights.shape()), " ");
    }
    void on_layer(Index l, TensorView<const float, 2> x) override {
      log += str("layer", l, shape_text(x.shape()), " ");
    }
    void on_final_norm(TensorView<const float, 2> x) override { log += str("norm", shape_text(x.shape())); }
    std::string log;
    Index last_expert = -1;
    std::size_t expert_rows = 0;
  };
  const test::RandomModel m(test::small_config());
  SerialExecutor serial;
  const KernelTable table = make_table(best_isa());
  Host host(m.model, table, serial);
  const std::size_t s = host.add({1, 2, 3});
  Recorder recorder;
  host.step({{s, 3}}, false, &recorder);
  CHECK(recorder.log ==
        "embedding[3, 32] h0[3, 32] attended0[3, 32] attention0[3, 32] routing0[3, 8][3, 2][3, 2] layer0[3, 32] "
        "h1[3, 32] attended1[3, 32] attention1[3, 32] routing1[3, 8][3, 2][3, 2] layer1[3, 32] norm[3, 32]");
  CHECK(recorder.expert_rows == 2 * 3 * 2);  // layers, tokens, choices
}

TEST_CASE("a pipeline of two ranges of layers, each with a cache of its own layers, gives the bits of the whole") {
  ModelConfig config = test::small_config();
  config.n_layers = 5;
  const test::RandomModel m(config);
  const std::vector<TokenId> tokens = {4, 9, 7, 1, 30, 2};
  test::for_each_context([&](const OpContext& ctx) {
    for (const bool whole_caches : {false, true}) {
      KvLayout first = kv_layout(config, DType::kBF16), second = first;
      if (!whole_caches) first.n_layers = 2, second.n_layers = 3;
      KvCache one(kv_layout(config, DType::kBF16), 1, 4), a(first, 1, 4), b(second, 1, 4);
      Forward forward, front, back;
      for (KvCache* cache : {&one, &a, &b}) cache->open();
      for (const auto& [begin, n] : {std::pair<Index, Index>{0, 4}, {4, 1}, {5, 1}}) {  // a prompt, two tokens
        std::vector<Index> positions(static_cast<std::size_t>(n));
        std::iota(positions.begin(), positions.end(), begin);
        const std::vector<SlotId> slots(static_cast<std::size_t>(n), 0);
        const std::vector<Index> wanted = {n - 1};
        const auto ids = std::span(tokens).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(n));
        const StepInput in{ids, positions, slots, wanted};
        Matrix<float> want(Shape<2>{{1, config.vocab_size}}), got(want.shape()), x(Shape<2>{{n, config.dim}});
        for (KvCache* cache : {&one, &a, &b}) cache->reserve(0, n);
        forward(ctx, m.model, in, one, want.view());
        front.embed(ctx, m.model, ids, x.view());
        front.layers(ctx, m.model, in, 0, 2, a, x.view());
        back.layers(ctx, m.model, {.positions = positions, .slots = slots}, 2, 5, b, x.view());
        back.head(ctx, m.model, wanted, x.view(), got.view());
        for (KvCache* cache : {&one, &a, &b}) cache->commit(0, n);
        CHECK(test::same_bits(got, want));
      }
      Matrix<float> x(Shape<2>{{1, config.dim}}), narrow(Shape<2>{{1, 3}});
      const std::vector<Index> position = {6};
      const std::vector<SlotId> slot = {0};
      a.reserve(0, 1);
      const auto refused = [&](Index from, Index to, TensorView<float, 2> rows) {
        return test::error_of(
            [&] { front.layers(ctx, m.model, {.positions = position, .slots = slot}, from, to, a, rows); });
      };
      CHECK(test::names(refused(-1, 1, x.view()), "layers [-1, 1) of 5"));
      CHECK(test::names(refused(3, 2, x.view()), "layers [3, 2) of 5"));
      CHECK(test::names(refused(0, 6, x.view()), "layers [0, 6) of 5"));
      CHECK(test::names(refused(0, 2, narrow.view()), "x is [1, 3], expected [1, 32]"));
      if (!whole_caches) CHECK(test::names(refused(0, 1, x.view()), "made for another model"));
    }
  });
}

TEST_CASE("several observers see the same, in their order, and whose rows a step has") {
  struct Log : ForwardObserver {
    explicit Log(std::string& to, char name) : out(to), id(name) {}
    void note(const char* what) { out += str(id, what, " "); }
    void on_step(std::span<const RowInfo> rows) override {
      note("step");
      for (const RowInfo& row : rows) out += str(row.slot, ":", row.position, " ");
    }
    void on_embedding(TensorView<const float, 2>) override { note("embedding"); }
    void on_attention_norm(Index, TensorView<const float, 2>) override { note("norm"); }
    void on_attended(Index, TensorView<const float, 2>) override { note("attended"); }
    void on_attention(Index, TensorView<const float, 2>) override { note("attention"); }
    void on_routing(Index, const moe::RoutingView&) override { note("routing"); }
    void on_expert(Index, const moe::ExpertRows&) override { note("expert"); }
    void on_layer(Index, TensorView<const float, 2>) override { note("layer"); }
    void on_final_norm(TensorView<const float, 2>) override { note("final"); }
    std::string& out;
    char id;
  };
  ModelConfig config = test::small_config();
  config.n_layers = 1, config.n_experts = 1, config.n_experts_per_tok = 1;
  const test::RandomModel m(config);
  SerialExecutor serial;
  const KernelTable table = test::reference_table();
  Host host(m.model, table, serial);
  const std::size_t first = host.add({1, 2, 3}), second = host.add({4, 5});
  std::string log;
  Log a(log, 'a'), b(log, 'b');
  Observers both{&a, &b};
  host.step({{first, 2}, {second, 1}}, false, &both);
  CHECK(log ==
        "astep 0:0 0:1 1:0 bstep 0:0 0:1 1:0 aembedding bembedding anorm bnorm aattended battended aattention "
        "battention arouting brouting aexpert bexpert alayer blayer afinal bfinal ");
  log.clear();
  host.step({{first, 1}}, false, &a);
  CHECK(log.starts_with("astep 0:2 aembedding"));
}

TEST_CASE("a step may have no tokens, or want no logits, or want some in any order") {
  const test::RandomModel m(test::small_config());
  const std::vector<TokenId> tokens = {4, 9, 7};
  const auto want = run_reference(m.model, tokens);
  test::SerialContext c(test::reference_table());
  KvCache cache(kv_layout(m.model.config, DType::kF32), 1, 4);
  const SlotId s = cache.open();
  const std::vector<Index> positions = {0, 1, 2}, order = {2, 0, 2};
  const std::vector<SlotId> slots = {s, s, s};
  Forward forward;
  CHECK_NOTHROW(forward(c.op, m.model, {}, cache, {}));
  cache.reserve(s, 3);
  CHECK_NOTHROW(forward(c.op, m.model, {tokens, positions, slots, {}}, cache, {}));
  Matrix<float> logits(Shape<2>{{3, 50}});
  forward(c.op, m.model, {tokens, positions, slots, order}, cache, logits.view());
  for (Index i = 0; i < 3; ++i) {
    CHECK(test::same_bits(logits.view().row_span(i), want.view().row_span(order[static_cast<std::size_t>(i)])));
  }
}

TEST_CASE("a step that does not fit is refused with the row and the numbers, and the cache is unchanged") {
  const test::RandomModel m(test::small_config());
  const test::SerialContext c;
  KvCache cache(kv_layout(m.model.config, DType::kF32), 2, 4);
  const SlotId s = cache.open();
  cache.reserve(s, 2);
  cache.commit(s, 2);
  cache.reserve(s, 3);
  Forward forward;
  using Tokens = std::vector<TokenId>;
  using Positions = std::vector<Index>;
  const auto refuse = [&](const Tokens& tokens, const Positions& positions, const std::vector<SlotId>& slots,
                          const Positions& rows, const char* part) {
    Matrix<float> logits(Shape<2>{{static_cast<Index>(rows.size()), 50}});
    CHECK(test::names(test::error_of([&] {
                        forward(c.op, m.model, {tokens, positions, slots, rows}, cache, logits.view());
                      }),
                      part));
    CHECK(cache.length(s) == 2);
    CHECK(cache.capacity(s) == 5);
  };
  refuse({1, 2}, {2}, {s, s}, {}, "2 tokens, 1 positions");
  refuse({1, 2}, {2, 3}, {s}, {}, "1 slots");
  refuse({1}, {1}, {s}, {}, "row 0 is at position 1");
  refuse({1}, {5}, {s}, {}, "row 0 is at position 5");
  refuse({1}, {-1}, {s}, {}, "row 0 is at position -1");
  refuse({1}, {2}, {s + 1}, {}, "slot 1 is not open");
  refuse({1}, {2}, {-1}, {}, "slot -1 is not open");
  refuse({1, 1}, {2, 2}, {s, s}, {}, "row 1 is at position 2");
  refuse({1, 1}, {2, 4}, {s, s}, {}, "row 1 is at position 4");
  refuse({1, 1}, {3, 2}, {s, s}, {}, "row 1 is at position 2");
  refuse({1, 50}, {2, 3}, {s, s}, {}, "token 50 at index 1");
  refuse({-1}, {2}, {s}, {}, "token -1");
  refuse({1}, {2}, {s}, {1}, "logits of row 1 of 1");
  refuse({1}, {2}, {s}, {-1}, "logits of row -1");

  Matrix<float> narrow(Shape<2>{{1, 49}});
  const Tokens tokens = {1};
  const Positions positions = {2}, rows = {0};
  const std::vector<SlotId> slots = {s};
  const StepInput in{tokens, positions, slots, rows};
  CHECK(test::names(test::error_of([&] { forward(c.op, m.model, in, cache, narrow.view()); }), "[1, 49]"));
  test::error_of([&] { forward(c.op, m.model, in, cache, {}); });
  for (const KvLayout other : {KvLayout{1, 2, 8}, KvLayout{2, 1, 8}, KvLayout{2, 2, 6}}) {
    KvCache foreign(other, 1, 4);
    foreign.reserve(foreign.open(), 5);
    Matrix<float> logits(Shape<2>{{1, 50}});
    CHECK(test::names(test::error_of([&] { forward(c.op, m.model, in, foreign, logits.view()); }), "another model"));
  }
}

TEST_CASE("logits of a model without a head are refused before anything is computed, its layers are not") {
  test::RandomModel m(test::small_config());
  m.model.weights.head = {};
  m.model.config.has_head = false;
  const test::SerialContext c;
  KvCache cache(kv_layout(m.model.config, DType::kF32), 1, 4);
  const SlotId s = cache.open();
  cache.reserve(s, 2);
  const std::vector<TokenId> tokens = {4, 9};
  const std::vector<Index> positions = {0, 1}, last = {1};
  const std::vector<SlotId> slots = {s, s};
  Matrix<float> logits(Shape<2>{{1, m.model.config.vocab_size}}), x(Shape<2>{{2, m.model.config.dim}});
  Forward forward;
  for (const bool tied : {false, true}) {
    m.model.config.tied_embeddings = tied;
    const Error step = test::error_of([&] {
      forward(c.op, m.model, {tokens, positions, slots, last}, cache, logits.view());
    });
    CHECK(step.code() == ErrorCode::kNotFound);
    CHECK(test::names(step, "step: logits of 1 rows are wanted, the model has no head"));
    CHECK(test::error_of([&] { forward.head(c.op, m.model, last, x.view(), logits.view()); }).code() ==
          ErrorCode::kNotFound);
    CHECK(cache.length(s) == 0);
    CHECK_NOTHROW(forward(c.op, m.model, {tokens, positions, slots, {}}, cache, {}));
  }
}

TEST_CASE("a packed model gives the same bits for every table, executor, split and batch, near the dense model's") {
  ModelConfig c = config_of(576, 9, 3, 64, 8, 2);
  c.hidden_dim = 1100;
  const test::RandomModel dense(c);
  test::Random random(93);
  const auto tokens = test::random_tokens(random, 40, c);
  const auto exact = run_reference(dense.model, tokens);
  for (const auto& [experts, rest] : {std::pair{DType::kP4, DType::kP8}, {DType::kP8, DType::kP4}}) {
    const test::PackedModel packed(dense.model, experts, rest);
    const auto want = run_reference(packed.model, tokens);
    double error = 0, size = 0;
    for (Index i = 0; i < want.size(); ++i) {
      error += std::pow(want.data()[i] - exact.data()[i], 2);
      size += std::pow(exact.data()[i], 2);
    }
    CHECK(std::sqrt(error / size) < 0.5);  // random weights: where a choice of experts flips, the rest is another token

    test::for_each_table_and_plain_units([&](const KernelTable& table) {
      test::for_each_executor(
          [&](Executor& executor) { CHECK(test::same_bits(run_whole(packed.model, tokens, table, executor), want)); });
      ThreadExecutor threads(2);
      for (int trial = 0; trial < 3; ++trial) {  // three sequences, pieces of any length, in one batch
        Host host(packed.model, table, threads);
        std::vector<std::size_t> sequences;
        for (int s = 0; s < 3; ++s) sequences.push_back(host.add({tokens.begin(), tokens.end() - s}));
        for (;;) {
          std::vector<test::Piece> pieces;
          for (const std::size_t s : sequences) {
            const Index count = std::min(host.left(s), random.index(0, 11));
            if (count > 0) pieces.push_back({s, count});
          }
          if (!pieces.empty()) host.step(pieces, trial == 1);
          if (std::all_of(sequences.begin(), sequences.end(), [&](std::size_t s) { return host.done(s); })) break;
        }
        for (const std::size_t s : sequences) {
          const auto& got = host.logits(s);
          CHECK(test::same_bits(got.span(), want.span().first(got.span().size())));
        }
      }
    });
  }
}
