// mixtral.h on several threads: one ctx, more sessions than threads, cancelled from elsewhere.
#include <atomic>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "support/capi.hpp"
#include "support/small_checkpoint.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using namespace mixtral::test;

namespace {

constexpr std::size_t kThreads = 4, kSessions = 8;
constexpr int kCalls = 60;

// doctest's assertions are not made for many threads: each thread notes its own.
struct Fault {
  std::mutex mutex;
  std::string text;
  void note(mixtral_status status, const char* where) {
    const std::lock_guard lock(mutex);
    if (text.empty()) text = std::string(where) + ": " + mixtral_status_text(status) + ": " + mixtral_last_error();
  }
};

// What one session does, decided by its number alone; a cancel costs a call, never another result.
class Script {
 public:
  Script(mixtral_session* session, std::size_t number, Fault& fault)
      : session_(session), random_(static_cast<unsigned>(number) + 100), fault_(fault) {}

  void call(mixtral_ctx* ctx) {
    switch (random_() % 8) {
      case 0: return counts(ctx);
      case 1: return feed_some();
      case 2: return read_logits();
      case 3: return forget();
      default: return step();
    }
  }
  int cancelled() const { return cancelled_; }

 private:
  template <class F>
  void until_not_cancelled(const char* where, F&& f) {
    mixtral_status status = f();
    for (; status == MIXTRAL_CANCELLED; status = f()) ++cancelled_;
    if (status != MIXTRAL_OK) fault_.note(status, where);
  }
  void expect_ok(const char* where, mixtral_status status) {
    if (status != MIXTRAL_OK) fault_.note(status, where);
  }
  std::size_t n_tokens() {
    mixtral_session_state state{};
    state.struct_size = sizeof state;
    expect_ok("info", mixtral_session_info(session_, &state));
    return static_cast<std::size_t>(state.n_tokens);
  }

  void counts(mixtral_ctx* ctx) {
    std::uint64_t counts[8];
    std::size_t n = 0;
    expect_ok("routing counts", mixtral_ctx_routing_counts(ctx, counts, 8, &n));
  }
  void feed_some() {
    std::int32_t tokens[3];
    for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(random_() % 200);
    if (n_tokens() < 30) expect_ok("feed", mixtral_session_feed(session_, tokens, 3, MIXTRAL_FEED_LOGITS));
  }
  void step() {
    std::int32_t token = 0;
    const std::size_t n = n_tokens();
    if (n == 0) return feed_some();
    if (n > 35) return forget();
    until_not_cancelled("step", [&] { return mixtral_session_step(session_, &token); });
  }
  void read_logits() {
    if (n_tokens() == 0) return;
    until_not_cancelled("eval", [&] { return mixtral_session_eval(session_); });
    std::vector<float> logits(400);
    std::size_t n = 0;
    const mixtral_status status = mixtral_session_logits(session_, n_tokens() - 1, logits.data(), logits.size(), &n);
    if (status == MIXTRAL_OK) last_ = logits;
  }
  void forget() {
    const std::size_t n = n_tokens();
    if (n == 0) return;
    until_not_cancelled("eval", [&] { return mixtral_session_eval(session_); });
    expect_ok("truncate", mixtral_session_truncate(session_, n / 2));
    const std::int32_t token = 6;
    expect_ok("feed", mixtral_session_feed(session_, &token, 1, 0));
  }

  mixtral_session* session_;
  std::mt19937 random_;
  Fault& fault_;
  std::vector<float> last_;
  int cancelled_ = 0;
};

struct Outcome {
  std::vector<std::vector<std::int32_t>> tokens;  // of each session
  std::vector<std::vector<float>> logits;         // of its last token
  std::uint64_t choices = 0;                      // of experts
  int cancelled = 0;
};

Outcome outcome(mixtral_ctx* ctx, const std::vector<CSession>& sessions) {
  Outcome out;
  for (const CSession& s : sessions) {
    ok(mixtral_session_clear_cancel(s.get()));
    ok(mixtral_session_eval(s.get()));
    out.tokens.push_back(tokens_of(s.get()));
    out.logits.push_back(logits_of(s.get(), out.tokens.back().size() - 1));
  }
  std::uint64_t counts[8];
  std::size_t n = 0;
  ok(mixtral_ctx_routing_counts(ctx, counts, 8, &n));
  for (const std::uint64_t count : counts) out.choices += count;
  return out;
}

std::vector<CSession> make_sessions(mixtral_ctx* ctx) {
  std::vector<CSession> sessions;
  for (std::size_t i = 0; i < kSessions; ++i) {
    sessions.push_back(make_session(ctx, session_params(i % 2 == 0 ? MIXTRAL_SESSION_RECORD_ROUTES : 0)));
    set_temperature(sessions.back().get(), 1, i);
  }
  return sessions;
}

// Each thread serves its sessions in turn; with `cancelling`, one more thread cancels any of them at any time.
Outcome play(mixtral_ctx* ctx, std::size_t n_threads, bool cancelling) {
  const std::vector<CSession> sessions = make_sessions(ctx);
  Fault fault;
  std::atomic<int> cancelled{0};
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < n_threads; ++t) {
    threads.emplace_back([&, t] {
      std::vector<Script> scripts;
      for (std::size_t i = t; i < kSessions; i += n_threads) scripts.emplace_back(sessions[i].get(), i, fault);
      for (int call = 0; call < kCalls; ++call) {
        for (Script& script : scripts) script.call(ctx);
      }
      for (const Script& script : scripts) cancelled += script.cancelled();
    });
  }
  std::thread canceller([&] {
    std::mt19937 random(5);
    while (cancelling && !done) {
      const mixtral_status status = mixtral_session_cancel(sessions[random() % kSessions].get());
      if (status != MIXTRAL_OK) fault.note(status, "cancel");
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  });
  for (std::thread& thread : threads) thread.join();
  done = true;
  canceller.join();
  CHECK(fault.text == "");
  Outcome out = outcome(ctx, sessions);
  out.cancelled = cancelled;
  return out;
}

Outcome play(std::int32_t workers, std::size_t n_threads, bool cancelling) {
  const TempDir dir;
  write_small_checkpoint(dir.path());
  mixtral_params p = params();
  p.executor = MIXTRAL_EXECUTOR_THREADS;
  p.n_threads = workers;
  const Ctx ctx = open_ctx(p, dir.path());
  return play(ctx.get(), n_threads, cancelling);
}

}  // namespace

TEST_CASE("four threads with eight sessions of one ctx get what one thread gets, to the bit") {
  const Outcome want = play(1, 1, false);
  const Outcome got = play(3, kThreads, false);
  CHECK(got.tokens == want.tokens);
  CHECK(got.logits == want.logits);
  CHECK(got.choices == want.choices);
}

TEST_CASE("cancels from another thread cost calls, but change no session's tokens or logits") {
  const Outcome want = play(1, 1, false);
  int cancelled = 0, plays = 0;
  // On a fast or busy machine all cancels of one play may come between calls.
  for (; plays < 100 && cancelled == 0; ++plays) {
    const Outcome got = play(2, kThreads, true);
    cancelled += got.cancelled;
    CHECK(got.tokens == want.tokens);
    CHECK(got.logits == want.logits);
    CHECK(got.choices == want.choices);
  }
  MESSAGE(cancelled, " calls cancelled in ", plays, " plays");
  CHECK(cancelled > 0);
}

TEST_CASE("a session destroyed while another thread generates on it ends that call") {
  const TempDir dir;
  write_small_checkpoint(dir.path());
  const Ctx ctx = open_ctx(params(), dir.path());
  for (int i = 0; i < 20; ++i) {
    mixtral_session* session = make_session(ctx.get()).release();
    feed(session, {1, 6});
    std::atomic<bool> begun{false};
    struct User {
      std::atomic<bool>& begun;
    } user{begun};
    mixtral_generate_params p;
    ok(mixtral_generate_params_init(&p, sizeof p));
    p.flags = MIXTRAL_GENERATE_IGNORE_EOS;
    p.user = &user;
    p.on_token = [](void* u, std::int32_t, const char*, std::size_t) {
      static_cast<User*>(u)->begun = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return 0;
    };
    mixtral_status status = MIXTRAL_OK;
    std::thread generating([&] { status = mixtral_session_generate(session, &p, nullptr); });
    while (!begun) std::this_thread::yield();
    mixtral_session_destroy(session);
    generating.join();
    CHECK((status == MIXTRAL_CANCELLED || status == MIXTRAL_OK));
  }
}
