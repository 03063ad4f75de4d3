#include "mixtral/core/executor.hpp"

#include <doctest/doctest.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "mixtral/core/openmp_executor.hpp"
#include "mixtral/core/thread_executor.hpp"
#include "support/error_of.hpp"
#include "support/fork.hpp"

using namespace mixtral;

namespace {

template <class F>
void for_each_executor(F&& f) {
  const auto run = [&](const std::string& executor, std::unique_ptr<Executor> e) {
    CAPTURE(executor);
    f(*e);
  };
  run("serial", std::make_unique<SerialExecutor>());
  for (const int n : {0, 1, 2, 3, 7}) {
    run("openmp " + std::to_string(n), std::make_unique<OpenMpExecutor>(n));
    run("threads " + std::to_string(n), std::make_unique<ThreadExecutor>(n));
  }
}

// Runs n tasks and checks that each ran once, on a worker in range.
void check_each_once(Executor& e, Index n) {
  std::vector<std::atomic<int>> runs(static_cast<std::size_t>(n));
  std::atomic<int> bad_workers{0};
  e.parallel_for(n, [&](Index i, int worker) {
    ++runs[static_cast<std::size_t>(i)];
    if (worker < 0 || worker >= e.n_workers()) ++bad_workers;
  });
  Index once = 0;
  for (const auto& r : runs) once += r == 1;
  CHECK(once == n);
  CHECK(bad_workers == 0);
}

}  // namespace

TEST_CASE("every task runs once, on a worker in range") {
  for_each_executor([](Executor& e) {
    CHECK(e.n_workers() >= 1);
    for (const Index n : {0, 1, 2, 3, 100, 5000}) check_each_once(e, n);
  });
}

TEST_CASE("no two tasks at a time share a worker") {
  for_each_executor([](Executor& e) {
    std::vector<std::atomic<int>> inside(static_cast<std::size_t>(e.n_workers()));
    std::atomic<int> clashes{0};
    e.parallel_for(500, [&](Index, int worker) {
      if (inside[static_cast<std::size_t>(worker)].fetch_add(1) != 0) ++clashes;
      std::this_thread::yield();
      inside[static_cast<std::size_t>(worker)].fetch_sub(1);
    });
    CHECK(clashes == 0);
  });
}

TEST_CASE("an exception is rethrown after the join, later tasks are skipped, the executor stays usable") {
  for_each_executor([](Executor& e) {
    for (int round = 0; round < 3; ++round) {
      std::atomic<int> inside{0}, ran{0};
      std::atomic<bool> thrown{false};
      const auto run = [&] {
        e.parallel_for(100000, [&](Index i, int) {
          ++inside;
          ++ran;
          if (i == 3) {
            --inside;
            thrown = true;
            throw std::runtime_error("task 3");
          }
          // On a busy machine the others could be through before the one that throws gets its turn.
          while (i > 3 && !thrown) std::this_thread::yield();
          if (i > 3) std::this_thread::yield();
          --inside;
        });
      };
      CHECK_THROWS_WITH_AS(run(), "task 3", std::runtime_error);
      CHECK(inside == 0);
      CHECK(ran < 100000);
      check_each_once(e, 50);
    }
  });
}

TEST_CASE("when every task throws, one exception arrives") {
  for_each_executor([](Executor& e) {
    CHECK_THROWS_AS(e.parallel_for(64, [](Index i, int) { throw i; }), Index);
    check_each_once(e, 10);
  });
}

TEST_CASE("with two workers, both do work") {
  const auto check = [](Executor& e) {
    // The first task waits until another worker has come: an executor that runs tasks in a row would not end
    // the wait before its time limit.
    std::atomic<int> met{0};
    e.parallel_for(2, [&](Index, int) {
      ++met;
      const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (met < 2 && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
    });
    CHECK(met == 2);
    std::vector<std::atomic<int>> tasks(2);
    std::atomic<int> arrived{0};
    e.parallel_for(2, [&](Index, int worker) {
      ++tasks[static_cast<std::size_t>(worker)];
      ++arrived;
      const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (arrived < 2 && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
    });
    CHECK(tasks[0] == 1);
    CHECK(tasks[1] == 1);
  };
  ThreadExecutor threads(2);
  check(threads);
#ifdef _OPENMP
  OpenMpExecutor openmp(2);
  check(openmp);
#endif
}

TEST_CASE("an OpenMP executor works inside a host's parallel region, one per host thread") {
  std::atomic<Index> total{0};
#pragma omp parallel num_threads(3)
  {
    OpenMpExecutor e(2);
    e.parallel_for(100, [&](Index i, int) { total += i; });
  }
#ifdef _OPENMP
  CHECK(total == 3 * 4950);
#else
  CHECK(total == 4950);
#endif
}

TEST_CASE("a thread executor can be made, used and destroyed many times, idle or busy") {
  for (int i = 0; i < 50; ++i) {
    ThreadExecutor e(3);
    if (i % 2 == 0) check_each_once(e, 8);
  }
}

TEST_CASE("in a team every task runs once, on a worker in range, section after section") {
  for_each_executor([](Executor& e) {
    int calls = 0;
    e.run_team([&](Executor& team) {
      ++calls;
      CHECK(team.n_workers() == e.n_workers());
      for (const Index n : {0, 1, 2, 3, 100, 5000}) check_each_once(team, n);
      for (int section = 0; section < 300; ++section) check_each_once(team, 1 + section % 5);
    });
    CHECK(calls == 1);
    check_each_once(e, 10);  // and after it
  });
}

TEST_CASE("a team's sections are over when they return: what the tasks wrote is there") {
  for_each_executor([](Executor& e) {
    e.run_team([&](Executor& team) {
      std::vector<int> values(97, 0);
      for (int section = 1; section <= 500; ++section) {
        team.parallel_for(97, [&](Index i, int) { ++values[static_cast<std::size_t>(i)]; });
        bool all = true;
        for (const int v : values) all = all && v == section;
        REQUIRE(all);
      }
    });
  });
}

TEST_CASE("an exception ends a team's section, or the team, and neither is broken by it") {
  for_each_executor([](Executor& e) {
    e.run_team([&](Executor& team) {
      for (const Index n : {1, 2, 100}) {
        CHECK_THROWS_AS(team.parallel_for(n,
                                          [&](Index i, int) {
                                            if (i == n / 2) throw std::runtime_error("task");
                                          }),
                        std::runtime_error);
        check_each_once(team, 50);
      }
    });
    CHECK_THROWS_AS(e.run_team([&](Executor&) { throw std::runtime_error("body"); }), std::runtime_error);
    check_each_once(e, 10);
  });
}

TEST_CASE("a team's workers share the work, and wait through long pauses") {
  ThreadExecutor threads(3);
  OpenMpExecutor openmp(3);
  for (Executor* e : {static_cast<Executor*>(&threads), static_cast<Executor*>(&openmp)}) {
    e->run_team([&](Executor& team) {
      for (int round = 0; round < 3; ++round) {
        std::this_thread::sleep_for(std::chrono::milliseconds(30));  // long enough for the others to fall asleep
        std::vector<std::atomic<int>> by_worker(3);
        team.parallel_for(60, [&](Index, int worker) {
          ++by_worker[static_cast<std::size_t>(worker)];
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        });
        int workers = 0;
        for (const auto& n : by_worker) workers += n > 0;
#ifndef _OPENMP
        if (e == &openmp) continue;
#endif
        CHECK(workers > 1);
      }
    });
  }
}

TEST_CASE("worker threads have names, and block every signal but those of their own faults") {
  constexpr int kFaults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
  sigset_t before, after;
  pthread_sigmask(SIG_SETMASK, nullptr, &before);
  ThreadExecutor e(3);
  pthread_sigmask(SIG_SETMASK, nullptr, &after);
  std::atomic<int> workers{0}, wrong{0};
  e.parallel_for(2, [&](Index, int worker) {
    ++workers;
    while (workers < 2) std::this_thread::yield();
    if (worker == 0) return;
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof name);
    wrong += std::string(name) == "mixtral-" + std::to_string(worker) ? 0 : 1;
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    for (int s = 1; s < 32; ++s) {
      const bool open = s == SIGKILL || s == SIGSTOP || std::find(kFaults, std::end(kFaults), s) != std::end(kFaults);
      wrong += (sigismember(&blocked, s) == 1) != open ? 0 : 1;
    }
  });
  CHECK(wrong == 0);
  for (int s = 1; s < 32; ++s) CHECK(sigismember(&after, s) == sigismember(&before, s));
}

TEST_CASE("a thread that the system refuses is an Error with how many were asked for") {
  pthread_attr_t usual, huge;
  pthread_getattr_default_np(&usual);
  pthread_attr_init(&huge);
  pthread_attr_setstacksize(&huge, std::size_t{1} << 60);  // no thread gets that
  pthread_setattr_default_np(&huge);
  const Error error = test::error_of([] { ThreadExecutor e(4); });
  pthread_setattr_default_np(&usual);
  CHECK(error.code() == ErrorCode::kIo);
  CHECK(std::string(error.what())
            .starts_with(
                "threads: 4 are asked for, the calling one included; the system started 0 and refused the next: "));
  ThreadExecutor e(4);
  check_each_once(e, 50);
}

TEST_CASE("in the child of a fork the caller works alone, and executors can be destroyed") {
  auto threads = std::make_unique<ThreadExecutor>(3);
  auto used = std::make_unique<OpenMpExecutor>(3);
  const auto sum = [](Executor& e) {
    Index total = 0;
    e.run_team([&](Executor& team) {
      for (int section = 0; section < 20; ++section) {
        std::atomic<Index> part{0};
        team.parallel_for(50, [&](Index i, int) { part += i; });
        total += part;
      }
    });
    return total;
  };
  CHECK(sum(*threads) == 24500);
  CHECK(sum(*used) == 24500);
  CHECK(test::in_child([&] {
    bool ok = sum(*threads) == 24500 && sum(*used) == 24500;
    ThreadExecutor own(3);  // whose threads may get the handles of those that are not there
    ok = ok && sum(own) == 24500;
    threads.reset();
    used.reset();
    return ok && sum(own) == 24500;
  }));
  CHECK(sum(*threads) == 24500);
}

TEST_CASE("a child that is forked in the middle of another thread's section works, too") {
  ThreadExecutor e(3);
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) e.parallel_for(40, [&](Index, int) { std::this_thread::sleep_for(std::chrono::microseconds(20)); });
  });
  for (int i = 0; i < 10; ++i) {
    std::this_thread::sleep_for(std::chrono::microseconds(300 * i));
    CHECK(test::in_child([&] {
      std::atomic<Index> total{0};
      e.parallel_for(100, [&](Index task, int) { total += task; });
      return total == 4950;
    }));
  }
  stop = true;
  busy.join();
}
