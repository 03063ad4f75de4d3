// The user's lines, from a terminal with editing and history or from a pipe, and Ctrl-C.
#pragma once

#include <optional>
#include <string>

#include "mixtral/core/cancel_flag.hpp"

namespace mixtral::cli {

// One at a time: line editing and signals belong to the whole process.
class Terminal {
 public:
  // In a terminal, Ctrl-C does not end the program any more.
  Terminal();
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // Whether a person sits there: standard input and output are a terminal.
  bool interactive() const noexcept { return interactive_; }

  // The next line, without its end; none at the end of the input. In a terminal a backslash at the end of a line means
  // that another one follows, and Ctrl-C begins anew. Throws Error(kIo).
  std::optional<std::string> read_line();

  // Set when Ctrl-C came after the last line.
  static const CancelFlag& interrupted() noexcept;

 private:
  bool interactive_;
};

}  // namespace mixtral::cli
