// Runs the program `mixtral` as a user does, through a shell.
#pragma once

#include <sys/wait.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"
#include "support/temp_dir.hpp"

namespace mixtral::test {

struct Answer {
  int status;  // exit code; -1: it was killed
  std::string out, err;
};

// As one word of the shell.
inline std::string quoted(const std::string& text) {
  std::string word = "'";
  for (const char c : text) word += c == '\'' ? "'\\''" : std::string(1, c);
  return word + "'";
}

// 1,2,3
inline std::string list_of(const std::vector<std::int32_t>& ids) {
  std::string list;
  for (const std::int32_t id : ids) list += str(list.empty() ? "" : ",", id);
  return list;
}

// `arguments` are the shell's, so they may end in a redirection of stdout: "eval --ids 1 >/dev/full".
inline Answer run_program(const std::string& arguments) {
  const TempDir dir;
  const std::string command = "OMP_WAIT_POLICY=passive >" + quoted(dir / "out") + " 2>" + quoted(dir / "err") +
                              " </dev/null '" MIXTRAL_PROGRAM "' " + arguments;
  const int status = std::system(command.c_str());
  constexpr Index kMostBytes = Index{1} << 24;
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(dir / "out", kMostBytes),
          read_file(dir / "err", kMostBytes)};
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// The last line, without its line end.
inline std::string last_line(std::string text) {
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text.substr(text.rfind('\n') + 1);  // npos + 1 is 0
}

}  // namespace mixtral::test
