#include "mixtral/runtime/turn_lock.hpp"

#include <doctest/doctest.h>

#include <mutex>
#include <string>
#include <vector>

#include "support/error_of.hpp"
#include "support/fork.hpp"

using namespace mixtral;

TEST_CASE("a turn lock keeps threads apart and serves them in the order of asking") {
  TurnLock lock;
  std::vector<int> order;
  std::vector<std::thread> threads;
  lock.lock();
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      const std::lock_guard guard(lock);
      order.push_back(i);
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // until this one has asked
  }
  lock.unlock();
  for (std::thread& thread : threads) thread.join();
  CHECK(order == std::vector{0, 1, 2, 3});
  int count = 0;
  threads.clear();
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 5000; ++k) {
        const std::lock_guard guard(lock);
        ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(count == 20000);
}

TEST_CASE("a thread that holds a turn lock may not ask for it again") {
  TurnLock lock;
  const std::lock_guard guard(lock);
  CHECK(test::error_of([&] { lock.lock(); }).code() == ErrorCode::kBusy);
}

TEST_CASE("a turn lock that nobody held works in the child of a fork, one that another thread held says so there") {
  TurnLock lock;
  const auto works = [&] {
    for (int i = 0; i < 3; ++i) const std::lock_guard guard(lock);
    return true;
  };
  works();
  CHECK(test::in_child([&] {
    return test::in_child(works) && works();  // in a grandchild, too
  }));
  std::thread([&] { lock.lock(); }).join();
  CHECK(test::in_child([&] {
    for (int i = 0; i < 3; ++i) {
      try {
        lock.lock();
        return false;
      } catch (const Error& error) {
        if (error.code() != ErrorCode::kBusy) return false;
        if (std::string(error.what()).find("when this process was forked") == std::string::npos) return false;
      }
    }
    return true;
  }));
}
