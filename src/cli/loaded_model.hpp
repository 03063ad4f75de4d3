// A model ready to run, as the common options ask for it, and how far a command has come with it.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "cli/common.hpp"
#include "mixtral/runtime/loaded_model.hpp"

namespace mixtral::cli {

// Opens the model, and tells on stderr what its files made the library note.
LoadedModel load_model(const CommonOptions& options);

// A bar on stderr, on a terminal only, at most ten times a second.
class ProgressBar {
 public:
  ProgressBar(std::string name, Index total);
  ~ProgressBar() { finish(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void show(Index done);
  // Wipes the bar. Nothing is shown after that.
  void finish();

 private:
  std::string name_;
  Index total_;
  bool active_, drawn_ = false;
  std::chrono::steady_clock::time_point next_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
};

}  // namespace mixtral::cli
