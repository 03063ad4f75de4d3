// Something to be tried in the child of a fork().
#pragma once

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

namespace mixtral::test {

// Whether action(), a bool, is true in a child, which may not hang.
template <class F>
bool in_child([[maybe_unused]] F&& action) {
#if defined(__SANITIZE_THREAD__)
  MESSAGE("skipped: the thread sanitizer ends a child that starts threads");
  return true;
#else
  const pid_t child = ::fork();
  if (child < 0) return false;
  if (child == 0) {
    ::alarm(60);
    bool ok = false;
    try {
      ok = std::forward<F>(action)();
    } catch (...) {
    }
    ::_exit(ok ? 0 : 1);
  }
  int status = 0;
  return ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
#endif
}

}  // namespace mixtral::test
