// mixtral.h: the host's own threads.
#include <atomic>
#include <thread>

#include "support/capi.hpp"

using namespace mixtral;
using namespace mixtral::test;

namespace {

// What a host may make of n_jobs.
struct Host {
  enum class Way { kThreads, kSerial, kNone, kTooMany, kThrows, kReenters } way;
  mixtral_session* session = nullptr;
  int calls = 0;
  int most_jobs = 0;
};

void run(void* user, std::int32_t n_jobs, mixtral_job_fn job, void* state) {
  auto& host = *static_cast<Host*>(user);
  ++host.calls;
  host.most_jobs = std::max(host.most_jobs, static_cast<int>(n_jobs));
  std::vector<std::thread> threads;
  switch (host.way) {
    case Host::Way::kNone: break;
    case Host::Way::kSerial:
      for (int i = 0; i < n_jobs; ++i) job(state);
      break;
    case Host::Way::kTooMany:
      for (int i = 0; i < 3 * n_jobs; ++i) threads.emplace_back([&] { job(state); });
      break;
    case Host::Way::kThrows: job(state); throw std::runtime_error("the pool is gone");
    case Host::Way::kReenters: {
      std::int32_t token;
      CHECK(refused(mixtral_session_step(host.session, &token), MIXTRAL_BUSY) ==
            "a step may not start another step on the same threads");
      [[fallthrough]];
    }
    case Host::Way::kThreads:
      for (int i = 0; i < n_jobs; ++i) threads.emplace_back([&] { job(state); });
  }
  for (std::thread& thread : threads) thread.join();
}

mixtral_params host_params(Host& host) {
  mixtral_params p = params();
  p.executor = MIXTRAL_EXECUTOR_HOST;
  p.n_threads = 3;
  p.run = run;
  p.run_user = &host;
  return p;
}

}  // namespace

TEST_CASE("whatever a host makes of its jobs, the logits are the same bits") {
  const CSession reference = make_session(tiny_ctx());
  feed(reference.get(), {1, 60, 61, 62});
  ok(mixtral_session_eval(reference.get()));
  const auto want = logits_of(reference.get(), 3);
  using Way = Host::Way;
  for (const Way way : {Way::kThreads, Way::kSerial, Way::kNone, Way::kTooMany}) {
    CAPTURE(static_cast<int>(way));
    Host host{way};
    const Ctx ctx = open_ctx(host_params(host));
    const CSession session = make_session(ctx.get());
    feed(session.get(), {1, 60, 61, 62});
    ok(mixtral_session_eval(session.get()));
    CHECK(logits_of(session.get(), 3) == want);
    CHECK(host.calls > 10);
    CHECK(host.most_jobs == 3);
  }
}

TEST_CASE("a host's exception ends the step, and the step can be repeated") {
  Host host{Host::Way::kThrows};
  const Ctx ctx = open_ctx(host_params(host));
  const CSession session = make_session(ctx.get());
  feed(session.get(), {1, 60, 61, 62});
  CHECK(refused(mixtral_session_eval(session.get()), MIXTRAL_INTERNAL) == "the pool is gone");
  CHECK(state_of(session.get()).n_computed == 0);
  host.way = Host::Way::kThreads;
  ok(mixtral_session_eval(session.get()));
}

TEST_CASE("a step inside a step of the same ctx is refused instead of waiting for itself") {
  Host host{Host::Way::kReenters};
  const Ctx ctx = open_ctx(host_params(host));
  const CSession session = make_session(ctx.get()), other = make_session(ctx.get());
  feed(other.get(), {1, 2});
  host.session = other.get();
  feed(session.get(), {1, 60, 61, 62});
  ok(mixtral_session_eval(session.get()));
  CHECK(state_of(other.get()).n_computed == 0);
}
