// mixtral.h in hosts of their own kinds: with another floating-point environment, with small stacks, that fork.
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "support/capi.hpp"
#include "support/float_environments.hpp"
#include "support/fork.hpp"
#include "support/small_checkpoint.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using namespace mixtral::test;

namespace {

// What callbacks see, and how the step that they belong to ends.
struct Watcher {
  detail::FloatState host;
  int calls = 0, wrong = 0;
  void look() {
    ++calls;
    if (!detail::FloatState::read().computes_as(host)) ++wrong;
  }
};
Watcher& watcher(void* user) { return *static_cast<Watcher*>(user); }

void run_jobs(void* user, std::int32_t n_jobs, mixtral_job_fn job, void* state) {
  watcher(user).look();
  std::thread other([&] { job(state); });
  for (int i = 1; i < n_jobs; ++i) job(state);
  other.join();
  watcher(user).look();
}

// Opens, feeds, generates with every callback there is; the tokens that came of it.
std::vector<std::int32_t> generate_watched(const std::filesystem::path& dir, Watcher& w) {
  mixtral_params p{};
  mixtral_params_init(&p, sizeof p);
  p.executor = MIXTRAL_EXECUTOR_HOST;
  p.n_threads = 2;
  p.run = run_jobs;
  p.run_user = p.log_user = &w;
  p.log = [](void* user, std::int32_t, const char*, std::size_t) { watcher(user).look(); };
  const std::string path = dir.string();
  mixtral_ctx* ctx = nullptr;
  mixtral_session* session = nullptr;
  std::vector<std::int32_t> tokens(20);
  std::size_t n = 0;
  const std::int32_t prompt[] = {1, 6, 7};
  mixtral_status status = mixtral_ctx_create(path.data(), path.size(), &p, &ctx);
  if (status == MIXTRAL_OK) status = mixtral_session_create(ctx, nullptr, &session);
  if (status == MIXTRAL_OK) status = mixtral_session_feed(session, prompt, 3, 0);
  if (status == MIXTRAL_OK) {
    mixtral_session_set_logits_callback(
        session, [](void* user, float*, std::size_t) { return watcher(user).look(), 0; }, &w);
    mixtral_generate_params g{};
    mixtral_generate_params_init(&g, sizeof g);
    g.flags = MIXTRAL_GENERATE_IGNORE_EOS;
    g.max_tokens = 10;
    g.user = &w;
    g.on_token = [](void* user, std::int32_t, const char*, std::size_t) { return watcher(user).look(), 0; };
    status = mixtral_session_generate(session, &g, nullptr);
  }
  if (status == MIXTRAL_OK) status = mixtral_session_tokens(session, tokens.data(), tokens.size(), &n);
  tokens.resize(status == MIXTRAL_OK ? n : 0);
  mixtral_session_destroy(session);
  mixtral_ctx_destroy(ctx);
  return tokens;
}

}  // namespace

TEST_CASE("in any floating-point environment the same tokens are drawn, and callbacks run in the host's") {
  const TempDir dir;
  write_small_checkpoint(dir.path());
  check_in_every_float_environment([&] {
    Watcher w{detail::FloatState::read()};
    const auto tokens = generate_watched(dir.path(), w);
    return std::pair(tokens, std::pair(w.calls > 20, w.wrong));
  });
}

TEST_CASE("a call that fails leaves the floating-point environment as it was") {
  check_in_every_float_environment([] {
    mixtral_ctx* ctx = nullptr;
    return mixtral_ctx_create("/nowhere", 8, nullptr, &ctx);
  });
}

namespace {

// Calls as long as nothing fails, on a thread with a stack of that size; how much of it they took, with what the system
// keeps there itself.
template <class F>
std::size_t stack_used(F&& calls) {
  constexpr std::size_t kStack = std::size_t{1} << 20;
  constexpr unsigned char kUntouched = 0xA5;
  std::vector<unsigned char> stack(kStack + 4096, kUntouched);
  unsigned char* const begin = stack.data() + (4096 - reinterpret_cast<std::uintptr_t>(stack.data()) % 4096);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  REQUIRE(pthread_attr_setstack(&attributes, begin, kStack) == 0);
  pthread_t thread;
  const auto start = [](void* f) -> void* { return (*static_cast<std::remove_reference_t<F>*>(f))(), nullptr; };
  REQUIRE(pthread_create(&thread, &attributes, start, &calls) == 0);
  pthread_join(thread, nullptr);
  std::size_t untouched = 0;
  while (untouched < kStack && begin[untouched] == kUntouched) ++untouched;
  return kStack - untouched;
}

}  // namespace

TEST_CASE("64 KiB of stack are enough for a thread that opens a model, reads a long prompt and generates") {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  MESSAGE("skipped: sanitizers put much more on the stack");
#else
  for (const std::int32_t isa : {MIXTRAL_ISA_BEST, MIXTRAL_ISA_REFERENCE}) {
    mixtral_params p = params();
    p.isa = isa;
    mixtral_status status = MIXTRAL_OK;
    const std::size_t used = stack_used([&] {
      const std::string path = tiny_dir().string();
      mixtral_ctx* ctx = nullptr;
      mixtral_session* session = nullptr;
      const std::vector<std::int32_t> ids(300, 60);
      std::int32_t token;
      status = mixtral_ctx_create(path.data(), path.size(), &p, &ctx);
      if (status == MIXTRAL_OK) status = mixtral_session_create(ctx, nullptr, &session);
      if (status == MIXTRAL_OK) status = mixtral_session_feed(session, ids.data(), ids.size(), 0);
      if (status == MIXTRAL_OK) status = mixtral_session_step(session, &token);
      mixtral_generate_params g{};
      mixtral_generate_params_init(&g, sizeof g);
      g.max_tokens = 20;
      if (status == MIXTRAL_OK) status = mixtral_session_generate(session, &g, nullptr);
      if (status == MIXTRAL_OK) status = mixtral_chat_begin(session, MIXTRAL_CHAT_AUTO, 0);
      if (status == MIXTRAL_OK) status = mixtral_chat_say(session, "NAME", 4, &g, nullptr);
      mixtral_session_destroy(session);
      mixtral_ctx_destroy(ctx);
    });
    ok(status);
    MESSAGE(used, " bytes of stack");
    CHECK(used > 4096);
    CHECK(used < 64 * 1024);
  }
#endif
}

namespace {

// A step in a child: 0 as it should be, 1 refused because of the fork, 2 anything else.
int step_after_fork(mixtral_ctx* ctx) {
  mixtral_session* session = nullptr;
  const std::int32_t prompt[] = {1, 6, 7};
  std::int32_t token;
  mixtral_status status = mixtral_session_create(ctx, nullptr, &session);
  if (status == MIXTRAL_OK) status = mixtral_session_feed(session, prompt, 3, 0);
  if (status == MIXTRAL_OK) status = mixtral_session_step(session, &token);
  const bool forked = std::strstr(mixtral_last_error(), "when this process was forked") != nullptr;
  mixtral_session_destroy(session);
  return status == MIXTRAL_OK ? 0 : status == MIXTRAL_BUSY && forked ? 1 : 2;
}

}  // namespace

TEST_CASE("a child that is forked while nobody computes goes on with ctx and sessions, and can destroy them") {
  const TempDir dir;
  write_small_checkpoint(dir.path());
  Ctx ctx = open_ctx(params(), dir.path());
  CSession session = make_session(ctx.get());
  feed(session.get(), {1, 6, 7});
  ok(mixtral_session_eval(session.get()));
  const auto want = logits_of(session.get(), 2);
  for (int i = 0; i < 3; ++i) {
    CHECK(in_child([&] {
      ok(mixtral_session_truncate(session.get(), 0));
      feed(session.get(), {1, 6, 7});
      ok(mixtral_session_eval(session.get()));
      const bool same = logits_of(session.get(), 2) == want;
      session.reset();
      const bool steps = step_after_fork(ctx.get()) == 0;
      const Ctx own = open_ctx(params(), dir.path());
      ctx.reset();
      return same && steps && step_after_fork(own.get()) == 0;
    }));
  }
}

TEST_CASE("a child that is forked while a thread computes is told so, and can destroy what it has") {
  const TempDir dir;
  write_small_checkpoint(dir.path());
  struct Pool {
    std::atomic<bool> inside{false}, go_on{false};
  } pool;
  mixtral_params p = params();
  p.executor = MIXTRAL_EXECUTOR_HOST;
  p.run_user = &pool;
  p.run = [](void* user, std::int32_t, mixtral_job_fn, void*) {
    auto& the = *static_cast<Pool*>(user);
    the.inside = true;
    while (!the.go_on) std::this_thread::yield();
  };
  Ctx ctx = open_ctx(p, dir.path());
  CSession busy = make_session(ctx.get()), idle = make_session(ctx.get());
  feed(busy.get(), {1, 6, 7});
  feed(idle.get(), {1, 6, 7});
  mixtral_status status = MIXTRAL_INTERNAL;
  std::thread computing([&] { status = mixtral_session_eval(busy.get()); });
  while (!pool.inside) std::this_thread::yield();
  CHECK(in_child([&] {
    const bool told = mixtral_session_eval(idle.get()) == MIXTRAL_BUSY && step_after_fork(ctx.get()) == 1 &&
                      mixtral_session_eval(busy.get()) == MIXTRAL_BUSY &&
                      std::strstr(mixtral_last_error(), "when this process was forked") != nullptr;
    busy.reset();
    idle.reset();
    ctx.reset();
    const Ctx own = open_ctx(params(), dir.path());
    return told && step_after_fork(own.get()) == 0;
  }));
  pool.go_on = true;
  computing.join();
  ok(status);
  ok(mixtral_session_eval(idle.get()));
}

TEST_CASE("children that are forked at any moment of another thread's steps never hang") {
  const TempDir dir;
  write_small_checkpoint(dir.path());
  Ctx ctx = open_ctx(params(), dir.path());
  std::atomic<bool> stop{false};
  std::thread computing([&] {
    while (!stop) step_after_fork(ctx.get());
  });
  for (int i = 0; i < 40; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(100 * i));
    CHECK(in_child([&] {
      std::uint64_t counts[8];
      std::size_t n = 0;
      const mixtral_status counted = mixtral_ctx_routing_counts(ctx.get(), counts, 8, &n);
      const int outcome = step_after_fork(ctx.get());
      ctx.reset();
      return outcome < 2 && (counted == MIXTRAL_OK || counted == MIXTRAL_BUSY);
    }));
  }
  stop = true;
  computing.join();
}
