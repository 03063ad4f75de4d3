// What the library's own threads owe the host: they take none of its signals, and carry a name.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <charconv>
#include <initializer_list>

namespace mixtral::detail {

// While it lives this thread takes no signals, and the threads that it starts then never do: those of the process are
// for the host's threads, which may block them or wait for them. Not blocked are the ones by which the system reports a
// fault of the thread itself; if they were, the process would end without the host's handler.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    sigset_t all;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS}) sigdelset(&all, fault);
    pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

// "mixtral-1", as debuggers and `ps -T` show it.
inline void name_this_thread([[maybe_unused]] int worker) noexcept {
#if defined(__linux__)
  char name[16] = "mixtral-";  // the system takes 15 characters
  std::to_chars(name + 8, name + sizeof name - 1, worker);
  pthread_setname_np(pthread_self(), name);
#endif
}

}  // namespace mixtral::detail
