// Runs the program `mixtral` in a terminal of its own, as a person does.
#pragma once

#include <doctest/doctest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace mixtral::test {

class ProgramInTerminal {
 public:
  explicit ProgramInTerminal(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), MIXTRAL_PROGRAM);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    winsize size = {};
    size.ws_row = 24;
    size.ws_col = 200;
    pid_ = ::forkpty(&terminal_, nullptr, nullptr, &size);
    if (pid_ < 0) throw std::runtime_error("cannot open a terminal");
    if (pid_ != 0) return;
    ::setenv("TERM", "xterm", 1);
    ::setenv("EDITRC", "/nonexistent", 1);  // not what this user's keys do
    ::setenv("OMP_WAIT_POLICY", "passive", 1);
    ::execv(MIXTRAL_PROGRAM, argv.data());
    ::_exit(127);
  }
  ~ProgramInTerminal() {
    ::close(terminal_);
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
  }
  ProgramInTerminal(const ProgramInTerminal&) = delete;
  ProgramInTerminal& operator=(const ProgramInTerminal&) = delete;

  void type(std::string_view keys) const {
    REQUIRE(::write(terminal_, keys.data(), keys.size()) == static_cast<ssize_t>(keys.size()));
  }

  void interrupt() const { ::kill(pid_, SIGINT); }

  // What the terminal shows up to and with `end`, from where the last call stopped.
  std::string read_until(std::string_view end) {
    while (shown_.find(end) == std::string::npos) {
      if (!read_more()) FAIL("not shown: \"", std::string(end), "\"; shown: ", shown_, "; ", state());
    }
    return take(shown_.find(end) + end.size());
  }

  // Shows `prompt` and reads keys one by one, which the editor begins only after that.
  void await_prompt(std::string_view prompt) {
    read_until(prompt);
    for (int i = 0; i < 6000; ++i) {
      termios mode = {};
      REQUIRE(::tcgetattr(terminal_, &mode) == 0);
      if ((mode.c_lflag & ICANON) == 0) return;
      ::usleep(10'000);
    }
    FAIL("no line is read after the prompt ", std::string(prompt));
  }

  // The next n bytes that it shows.
  std::string read(std::size_t n) {
    while (shown_.size() < n) {
      if (!read_more()) FAIL("not ", n, " bytes shown: ", shown_);
    }
    return take(n);
  }

  // The exit code, once the program has ended by itself; -1: it was killed.
  int exit_code() {
    while (read_more()) shown_.clear();
    int status = 0;
    const pid_t ended = ::waitpid(pid_, &status, WNOHANG);
    for (int i = 0; ended == 0 && i < 600 && ::waitpid(pid_, &status, WNOHANG) == 0; ++i) ::usleep(100'000);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  std::string state() {
    int status = 0;
    ::usleep(100'000);
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return "the program runs";
    pid_ = -1;
    return (WIFEXITED(status) ? "the program has ended with " : "the program was killed by ") +
           std::to_string(WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
  }

  std::string take(std::size_t n) {
    const std::string text = shown_.substr(0, n);
    shown_.erase(0, n);
    return text;
  }

  // False at the end, if nothing comes for a minute, or if far more comes than is waited for.
  bool read_more() {
    if (shown_.size() > (std::size_t{1} << 18)) return false;
    pollfd ready = {terminal_, POLLIN, 0};
    char block[4096];
    const ssize_t n = ::poll(&ready, 1, 60'000) == 1 ? ::read(terminal_, block, sizeof block) : 0;
    if (n > 0) shown_.append(block, static_cast<std::size_t>(n));
    return n > 0;
  }

  int terminal_ = -1;
  pid_t pid_ = -1;
  std::string shown_;
};

}  // namespace mixtral::test
