#include "mixtral/runtime/session.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "mixtral/core/openmp_executor.hpp"
#include "mixtral/core/thread_executor.hpp"
#include "mixtral/io/huggingface.hpp"
#include "mixtral/ops/isa.hpp"
#include "support/allocations.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/float_environments.hpp"
#include "support/golden.hpp"
#include "support/models.hpp"

using namespace mixtral;

namespace {

const Model& model_b() {  // sliding window 16
  static const Model model = load_huggingface(test::golden_dir() / "models/B").model;
  return model;
}

const KernelTable& table() {
  static const KernelTable best = make_table(best_isa());
  return best;
}

std::vector<TokenId> some_ids(Index n) {
  std::vector<TokenId> ids;
  for (Index i = 0; i < n; ++i) ids.push_back(static_cast<TokenId>((i * 37 + 11) % 512));
  return ids;
}

std::vector<float> logits_after(Executor& executor, std::span<const TokenId> ids, Index chunk, Index evals,
                                DType kv_dtype = SessionOptions{}.kv_dtype) {
  const LoadedModel loaded(model_b(), table(), executor);
  Session session(loaded, {.chunk = chunk, .kv_dtype = kv_dtype});
  const Index n = static_cast<Index>(ids.size());
  for (Index i = 0; i < evals; ++i) {
    const Index begin = n * i / evals, end = n * (i + 1) / evals;
    session.feed(ids.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
    session.eval();
  }
  return {session.logits().begin(), session.logits().end()};
}

struct Throw : ForwardObserver {
  Index layer;
  explicit Throw(Index l) : layer(l) {}
  void on_layer(Index l, TensorView<const float, 2>) override {
    if (l == layer) throw Error(ErrorCode::kCancelled, "enough");
  }
};

}  // namespace

TEST_CASE("session: chunks, splits, executors and worker counts change no bit") {
  const auto ids = some_ids(100);
  SerialExecutor serial;
  for (const DType kv_dtype : kKvTypes) {
    const auto same = logits_after(serial, ids, 256, 1, kv_dtype);
    for (const Index chunk : {1, 7, 32, 33}) CHECK(logits_after(serial, ids, chunk, 1, kv_dtype) == same);
    for (const Index evals : {2, 5, 100}) CHECK(logits_after(serial, ids, 256, evals, kv_dtype) == same);
  }
  const auto want = logits_after(serial, ids, 256, 1);
  CHECK(logits_after(serial, ids, std::numeric_limits<Index>::max(), 3) == want);
  for (const int workers : {2, 3}) {
    OpenMpExecutor openmp(workers);
    ThreadExecutor threads(workers);
    CHECK(logits_after(openmp, ids, 256, 3) == want);
    CHECK(logits_after(threads, ids, 33, 2) == want);
  }
}

TEST_CASE("session: after a failed eval the tokens are still queued and a retry gives the same bits") {
  SerialExecutor executor;
  const auto ids = some_ids(70);
  const auto want = logits_after(executor, ids, 32, 1);
  const LoadedModel loaded(model_b(), table(), executor);
  Session session(loaded, {.chunk = 32});
  session.feed(std::span(ids).first(10));
  session.eval();
  const std::vector<float> before(session.logits().begin(), session.logits().end());
  session.feed(std::span(ids).subspan(10));
  Throw observer(1);
  CHECK_THROWS_WITH_AS(session.eval(&observer), "enough", Error);
  CHECK(session.length() == 10);
  CHECK(session.tokens().size() == 70);
  CHECK(std::vector<float>(session.logits().begin(), session.logits().end()) == before);
  session.eval();
  CHECK(std::vector<float>(session.logits().begin(), session.logits().end()) == want);
}

TEST_CASE("session: every allocation of an eval may fail without changing the session") {
  SerialExecutor executor;
  const auto ids = some_ids(40);
  const auto want = logits_after(executor, ids, 256, 1);
  std::size_t failures = 0;
  for (bool done = false; !done;) {
    const LoadedModel loaded(model_b(), table(), executor);
    Session session(loaded);
    session.feed(ids);
    try {
      const test::FailingAllocation fail(failures);
      session.eval();
      done = true;
    } catch (const std::bad_alloc&) {
      ++failures;
      CHECK(session.length() == 0);
      CHECK(session.logits().empty());
      session.eval();
    }
    CHECK(std::vector<float>(session.logits().begin(), session.logits().end()) == want);
  }
  MESSAGE(failures << " allocations failed in turn");
  CHECK(failures > 5);
}

TEST_CASE("session: a steady decode allocates nothing") {
  SerialExecutor executor;
  const LoadedModel loaded(model_b(), table(), executor);
  Session session(loaded);
  session.feed(some_ids(5));
  session.eval();
  for (int i = 0; i < 2; ++i) {  // the first decode step sizes what decode needs
    session.feed(7);
    session.eval();
  }
  const std::size_t before = test::allocations();
  session.feed(9);
  session.eval();
  CHECK(test::allocations() - before == 0);
}

TEST_CASE("session: truncate goes back, and going on from there gives the same bits") {
  SerialExecutor executor;
  const auto ids = some_ids(60);
  const auto want = logits_after(executor, ids, 256, 1);
  const LoadedModel loaded(model_b(), table(), executor);
  Session session(loaded);
  session.feed(std::span(ids).first(45));
  session.feed(some_ids(50));
  session.eval();
  session.truncate(45);
  CHECK(session.logits().empty());
  CHECK(session.tokens().size() == 45);
  session.feed(std::span(ids).subspan(45));
  session.eval();
  CHECK(std::vector<float>(session.logits().begin(), session.logits().end()) == want);
  CHECK_THROWS_AS(session.truncate(61), Error);
  CHECK_THROWS_AS(session.truncate(-1), Error);
}

TEST_CASE("session: bad tokens and a full context are refused by number, with nothing changed") {
  SerialExecutor executor;
  const LoadedModel loaded(model_b(), table(), executor);
  Session session(loaded, {.max_positions = 8});
  session.feed(some_ids(6));
  CHECK_THROWS_WITH_AS(session.feed(std::vector<TokenId>{1, 512}),
                       "feed: token 512 at index 1 is outside the vocabulary of 512", Error);
  CHECK_THROWS_WITH_AS(session.feed(-1), "feed: token -1 at index 0 is outside the vocabulary of 512", Error);
  try {
    session.feed(some_ids(3));
    FAIL("fed beyond the context");
  } catch (const Error& e) {
    CHECK(e.code() == ErrorCode::kContextFull);
    CHECK(std::string(e.what()) == "feed: 3 tokens after 6 do not fit into a context of 8");
  }
  CHECK(session.tokens().size() == 6);
  CHECK_THROWS_AS(Session(LoadedModel(model_b(), table(), executor), {.max_positions = 257}), Error);
  CHECK_THROWS_AS(Session(LoadedModel(model_b(), table(), executor), {.chunk = 0}), Error);
}

TEST_CASE("session: an eval with nothing queued does nothing") {
  SerialExecutor executor;
  const LoadedModel loaded(model_b(), table(), executor);
  Session session(loaded);
  session.eval();
  CHECK(session.logits().empty());
  session.feed(3);
  session.eval();
  const std::vector<float> before(session.logits().begin(), session.logits().end());
  session.eval();
  CHECK(std::vector<float>(session.logits().begin(), session.logits().end()) == before);
}

TEST_CASE("session: kept logits of any row are those of a session that ends there") {
  SerialExecutor executor;
  const auto ids = some_ids(20);
  const LoadedModel loaded(model_b(), table(), executor);
  Session session(loaded, {.chunk = 6});
  session.feed(std::span(ids).first(4));
  session.feed(std::span(ids).subspan(4, 9), KeepLogits::kAll);
  session.feed(std::span(ids).subspan(13));
  session.eval();
  for (const Index position : {0, 3, 13, 18}) CHECK(session.logits(position).empty());
  for (const Index position : {4, 8, 12, 19}) {
    const auto got = session.logits(position);
    CHECK(std::vector<float>(got.begin(), got.end()) ==
          logits_after(executor, std::span(ids).first(static_cast<std::size_t>(position) + 1), 256, 1));
  }
  session.truncate(9);
  CHECK(session.logits().size() == 512);  // of position 8, which is the last one now
  CHECK(session.logits(12).empty());
  session.feed(7);
  session.eval();
  CHECK(session.logits(8).empty());
}

TEST_CASE("session: set_tokens keeps what is the same from the start and computes the rest to the same bits") {
  SerialExecutor executor;
  const auto ids = some_ids(40);
  auto other = ids;
  other[25] = 99;
  const LoadedModel loaded(model_b(), table(), executor);
  Session session(loaded);
  CHECK(session.set_tokens(ids) == 0);
  session.eval();
  CHECK(session.set_tokens(other) == 25);
  CHECK(session.length() == 25);
  session.eval();
  CHECK(std::vector<float>(session.logits().begin(), session.logits().end()) == logits_after(executor, other, 256, 1));
  CHECK(session.set_tokens(other) == 40);  // nothing is new, and the logits are there
  CHECK(session.logits().size() == 512);
  CHECK(session.set_tokens(std::span(other).first(30)) == 29);  // the last one again: its logits are gone
  session.eval();
  CHECK(std::vector<float>(session.logits().begin(), session.logits().end()) ==
        logits_after(executor, std::span(other).first(30), 256, 1));
  CHECK(session.set_tokens(session.tokens()) == 30);
  CHECK_THROWS_AS(session.set_tokens(std::vector<TokenId>{1, 512}), Error);
  CHECK_THROWS_AS(session.set_tokens(some_ids(257)), Error);
  CHECK(session.length() == 30);
  CHECK(session.set_tokens({}) == 0);
  CHECK(session.tokens().empty());
}

TEST_CASE("session: a copy goes on by itself with the same bits") {
  SerialExecutor executor;
  const auto ids = some_ids(50);
  const LoadedModel loaded(model_b(), table(), executor);
  Session session(loaded);
  session.feed(std::span(ids).first(35));
  session.eval();
  session.feed(std::span(ids).subspan(35, 5));
  Session copy(session);
  CHECK(copy.length() == 35);
  CHECK(std::vector<float>(copy.logits().begin(), copy.logits().end()) ==
        std::vector<float>(session.logits().begin(), session.logits().end()));
  session.truncate(3);
  session.feed(some_ids(60));
  session.eval();
  copy.feed(std::span(ids).subspan(40));
  copy.eval();
  CHECK(std::vector<float>(copy.logits().begin(), copy.logits().end()) == logits_after(executor, ids, 256, 1));
}

TEST_CASE("session: copies hold common pages once, diverge, and give everything back") {
  ModelConfig config = test::small_config();
  config.max_positions = 8192;
  test::RandomModel m(config);
  test::Random random(91);
  const std::vector<TokenId> ids = test::random_tokens(random, 1000, config);
  SerialExecutor serial;
  const Index page = kv_layout(config, SessionOptions{}.kv_dtype).page_bytes();
  const auto logits_of = [&](std::vector<TokenId> tokens, TokenId last) {
    tokens.push_back(last);
    const LoadedModel alone_model(m.model, table(), serial);
    Session alone(alone_model);
    alone.feed(tokens);
    alone.eval();
    return std::vector<float>(alone.logits().begin(), alone.logits().end());
  };
  const std::vector<float> want[] = {logits_of(ids, 3), logits_of(ids, 4)};
  const std::ptrdiff_t before = test::live_allocations();
  {
    const LoadedModel a_model(m.model, table(), serial);
    Session a(a_model);
    a.feed(ids);
    a.eval();
    CHECK(a.kv_bytes() == 32 * page);
    CHECK(a.kv_shared_bytes() == 0);
    Session b(a);
    CHECK(a.kv_shared_bytes() == 32 * page);
    CHECK(b.kv_shared_bytes() == 32 * page);
    a.feed(3);
    a.eval();
    b.feed(4);
    b.eval();
    CHECK(a.kv_shared_bytes() == 31 * page);  // all but the last, which is not full
    CHECK(b.kv_bytes() == 32 * page);
    CHECK(std::equal(want[0].begin(), want[0].end(), a.logits().begin()));
    CHECK(std::equal(want[1].begin(), want[1].end(), b.logits().begin()));
    b.truncate(100);
    CHECK(b.kv_shared_bytes() == 4 * page);
    CHECK(a.kv_shared_bytes() == 4 * page);
  }
  CHECK(test::live_allocations() == before);
}

TEST_CASE("session: 8 of them on 4 threads copy each other's pages, go on and end, with the same bits") {
  test::RandomModel m(test::small_config());
  test::Random random(92);
  const std::vector<TokenId> ids = test::random_tokens(random, 75, m.model.config);
  SerialExecutor serial;
  const LoadedModel root_model(m.model, table(), serial);
  Session root(root_model);
  root.feed(ids);
  root.eval();
  std::vector<std::unique_ptr<Session>> sessions;
  for (int i = 0; i < 8; ++i) sessions.push_back(std::make_unique<Session>(root));
  std::vector<std::vector<float>> logits(8);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (const std::size_t s : {i, i + 4}) {
        for (int round = 0; round < 20; ++round) {  // a fork of a fork, which ends before or after what it came from
          auto fork = std::make_unique<Session>(*sessions[s]);
          fork->feed(static_cast<TokenId>(round));
          fork->eval();
          if (round % 2 == 0) {
            fork->truncate(75);
            sessions[s] = std::move(fork);
          }
        }
        sessions[s]->feed(7);
        sessions[s]->eval();
        logits[s].assign(sessions[s]->logits().begin(), sessions[s]->logits().end());
        sessions[s].reset();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  root.feed(7);
  root.eval();
  CHECK(root.kv_shared_bytes() == 0);
  for (const std::vector<float>& l : logits) CHECK(std::equal(l.begin(), l.end(), root.logits().begin()));
}

TEST_CASE("session: every allocation of a copy, of set_tokens and of a feed may fail without a trace") {
  SerialExecutor executor;
  const auto ids = some_ids(40);
  const LoadedModel loaded(model_b(), table(), executor);
  Session session(loaded);
  session.feed(ids);
  session.eval();
  const auto fails = [](auto action) {
    std::size_t failures = 0;
    for (bool done = false; !done;) {
      try {
        const test::FailingAllocation fail(failures);
        action();
        done = true;
      } catch (const std::bad_alloc&) {
        ++failures;
      }
    }
    return failures;
  };
  CHECK(fails([&] { const Session copy(session); }) > 5);
  const auto longer = some_ids(100);
  CHECK(fails([&] {
          try {
            session.set_tokens(longer);
          } catch (...) {
            CHECK(session.tokens().size() == 40);
            CHECK(session.length() == 40);
            throw;
          }
        }) > 0);
  CHECK(session.length() == 40);
  session.truncate(40);
  session.reserve(100);
  CHECK(fails([&] { session.feed(longer); }) == 0);
}

// A host's own executor: a thread for each task.
class HostExecutor final : public Executor {
 public:
  int n_workers() const noexcept override { return 3; }
  void parallel_for(Index n_tasks, Task task) override {
    for (Index i = 0; i < n_tasks; i += 3) {
      std::vector<std::thread> threads;
      for (int w = 0; w < 3 && i + w < n_tasks; ++w) threads.emplace_back([&, i, w] { task(i + w, w); });
      for (std::thread& thread : threads) thread.join();
    }
  }
};

TEST_CASE("session: no floating-point environment of the host changes a bit, and none is changed") {
  ModelConfig config = test::small_config();
  config.vocab_size = 9000;  // a head of several tasks, and with weights that are flushed where denormals are
  test::RandomModel m(config);
  test::Random random(17);
  m.model.weights.head = m.store.add(random, DType::kF32, config.vocab_size, config.dim, 3e-40);
  const std::vector<TokenId> ids = test::random_tokens(random, 20, config);
  const auto check = [&](Executor& executor) {
    const LoadedModel loaded(m.model, table(), executor);
    Session session(loaded);
    std::vector<float> first;
    test::check_in_every_float_environment([&] {
      bool same = true;
      for (int round = 0; round < 5; ++round) {
        session.truncate(0);
        session.feed(ids);
        session.eval();
        if (first.empty()) first.assign(session.logits().begin(), session.logits().end());
        same = same && std::memcmp(first.data(), session.logits().data(), first.size() * sizeof(float)) == 0;
      }
      return same;
    });
    for (const float x : first) REQUIRE(std::fpclassify(x) != FP_NORMAL);
    CHECK(std::count(first.begin(), first.end(), 0.0f) < config.vocab_size / 2);
  };
  test::for_each_executor(check);
  HostExecutor host;
  check(host);
}

TEST_CASE("session: an eval inside an eval is refused, and the outer one goes on") {
  SerialExecutor serial;
  const LoadedModel loaded(model_b(), table(), serial);
  Session session(loaded);
  session.feed(some_ids(5));
  struct Reenter : ForwardObserver {
    Session& session;
    int refused = 0;
    explicit Reenter(Session& s) : session(s) {}
    void on_layer(Index, TensorView<const float, 2>) override {
      refused += test::error_of([&] { session.eval(); }).code() == ErrorCode::kBusy ? 1 : 0;
    }
  } reenter(session);
  session.eval(&reenter);
  CHECK(reenter.refused == model_b().config.n_layers);
  CHECK(session.length() == 5);
}

TEST_CASE("session: without a head an eval computes nothing, and the tokens stay queued") {
  Model headless = model_b();
  headless.weights.head = {};
  headless.config.has_head = false;
  SerialExecutor executor;
  const LoadedModel loaded(headless, table(), executor);
  Session session(loaded, {.chunk = 4});
  CHECK_NOTHROW(session.eval());  // of nothing
  const auto ids = some_ids(10);
  session.feed(ids);
  struct : ForwardObserver {
    int steps = 0;
    void on_step(std::span<const RowInfo>) override { ++steps; }
  } observer;
  const Error error = test::error_of([&] { session.eval(&observer); });
  CHECK(error.code() == ErrorCode::kNotFound);
  CHECK(test::names(error, "opened without its head"));
  CHECK(observer.steps == 0);
  CHECK(session.length() == 0);
  CHECK(std::vector<TokenId>(session.tokens().begin(), session.tokens().end()) == ids);
  CHECK(session.logits().empty());
  CHECK(test::error_of([&] { Session(session).eval(); }).code() == ErrorCode::kNotFound);
  CHECK_NOTHROW(session.truncate(0));
}
