// Whether this process is the one that made an object, or a fork of it.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <new>

namespace mixtral::detail {

// Asked in every step: so it is a page that the system empties in a child (MADV_WIPEONFORK, Linux 4.14), which costs a
// load. Where there is none, it is the number of the process, which costs a system call.
class ForkMark {
 public:
  ForkMark() noexcept : process_(::getpid()) {
#if defined(MADV_WIPEONFORK)
    void* const page = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return;
    // An emulator may take any advice, follow none, and call that success.
    constexpr int kNoAdvice = -1;
    if (::madvise(page, kBytes, kNoAdvice) != 0 && ::madvise(page, kBytes, MADV_WIPEONFORK) == 0) {
      here_ = new (page) std::atomic<bool>(true);
    } else {
      ::munmap(page, kBytes);
    }
#endif
  }
  ~ForkMark() {
    if (here_ != nullptr) ::munmap(static_cast<void*>(here_), kBytes);
  }
  ForkMark(const ForkMark&) = delete;
  ForkMark& operator=(const ForkMark&) = delete;

  // Whether a fork() lies between the last adopt(), or the beginning, and now.
  bool inherited() const noexcept { return here_ != nullptr ? !here_->load() : process_.load() != ::getpid(); }
  // From now on it is this process's.
  void adopt() noexcept {
    if (here_ != nullptr) {
      here_->store(true);
    } else {
      process_.store(::getpid());
    }
  }

 private:
  static constexpr std::size_t kBytes = 4096;  // the system rounds it up to a page of its own

  std::atomic<pid_t> process_;
  std::atomic<bool>* here_ = nullptr;
};

}  // namespace mixtral::detail
