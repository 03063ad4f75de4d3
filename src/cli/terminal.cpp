#include "cli/terminal.hpp"

#include <editline/readline.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <system_error>

#include "cli/common.hpp"
#include "mixtral/core/error.hpp"

namespace mixtral::cli {
namespace {

CancelFlag interrupt_flag;
std::atomic<bool> editing = false;
bool abandoned = false;  // the line, by Ctrl-C while it was typed

// A signal that comes while the editor is not waiting for a key would wait for the next key with it. So the editor is
// woken each second until it has noticed.
void wake_editor(int) {
  if (editing) ::alarm(1);
}
void on_interrupt(int signal) {
  interrupt_flag.set();
  wake_editor(signal);
}

// While a line is typed Ctrl-C is a key, not a signal: the editor has nothing that a signal handler could safely call.
int on_ctrl_c(int /*count*/, int /*key*/) {
  abandoned = true;
  rl_done = 1;
  return 0;
}

int on_ctrl_z(int /*count*/, int /*key*/) { return std::raise(SIGTSTP); }

// The editor sets the terminal up anew for each line.
int keys_not_signals() { return rl_parse_and_bind("setty -d -isig"); }

void start_editor() {
  std::setlocale(LC_CTYPE, "C.UTF-8");  // the models' texts are, whatever the environment says
  rl_readline_name = "mixtral";
  rl_catch_signals = 1;  // a suspended or killed program leaves a usable terminal
  rl_initialize();
  rl_pre_input_hook = keys_not_signals;
  rl_add_defun("abandon-line", on_ctrl_c, CTRL('C'));
  rl_add_defun("suspend", on_ctrl_z, CTRL('Z'));
  rl_bind_key('\t', rl_insert);  // not names of files
  using_history();
  stifle_history(1000);
}

std::optional<std::string> edit_line(const char* prompt) {
  editing = true;
  const std::unique_ptr<char, decltype(&std::free)> line(readline(prompt), &std::free);
  editing = false;
  ::alarm(0);
  if (line == nullptr) return {};
  if (*line != '\0') add_history(line.get());
  return line.get();
}

// Without its end; none at the end of the input.
std::optional<std::string> read_piped_line() {
  char* line = nullptr;
  std::size_t capacity = 0;
  errno = 0;
  const ssize_t size = ::getline(&line, &capacity, stdin);
  const int error = errno;
  const std::unique_ptr<char, decltype(&std::free)> owner(line, &std::free);
  if (size < 0) {
    require(std::feof(stdin) != 0, ErrorCode::kIo, "stdin: cannot read: ", std::generic_category().message(error));
    return {};
  }
  std::string text(line, static_cast<std::size_t>(size));
  if (text.ends_with('\n')) text.pop_back();
  if (text.ends_with('\r')) text.pop_back();
  return text;
}

}  // namespace

Terminal::Terminal() : interactive_(::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1) {
  if (!interactive_) return;
  start_editor();
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  action.sa_handler = wake_editor;
  action.sa_flags = 0;  // ends the editor's read
  ::sigaction(SIGALRM, &action, nullptr);
}

Terminal::~Terminal() {
  if (!interactive_) return;
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGALRM, SIG_DFL);
}

const CancelFlag& Terminal::interrupted() noexcept { return interrupt_flag; }

std::optional<std::string> Terminal::read_line() {
  std::string text;
  if (!interactive_) return read_piped_line();
  for (;;) {
    abandoned = false;
    interrupt_flag.clear();
    const std::optional<std::string> line = edit_line(text.empty() ? "> " : ". ");
    if (line && !line->ends_with('\\')) return text + *line;
    if (line) {
      text.append(*line, 0, line->size() - 1) += '\n';
    } else if (abandoned || interrupt_flag.is_set()) {  // the key, or a signal from elsewhere
      write_stdout("^C\n");
      text.clear();
    } else {
      write_stdout("\n");
      return {};
    }
  }
}

}  // namespace mixtral::cli
