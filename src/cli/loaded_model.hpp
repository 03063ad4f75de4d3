// A model ready to run, as the common options ask for it, and how far a command has come with it.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/common.hpp"
#include "mixtral/runtime/loaded_model.hpp"
#include "mixtral/runtime/session.hpp"

namespace mixtral::cli {

// Opens the model, and tells on stderr what its files made the library note.
LoadedModel load_model(const CommonOptions& options, Head head = Head::kRequired);

// A bar on stderr, on a terminal only, at most ten times a second.
class ProgressBar {
 public:
  explicit ProgressBar(std::string name, Index total = 1);
  ~ProgressBar() { finish(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void show(Index done);
  void show(Index done, Index total);
  // Wipes the bar. Nothing is shown after that.
  void finish();

 private:
  std::string name_;
  Index total_;
  bool active_, drawn_ = false;
  std::chrono::steady_clock::time_point next_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
};

// Watches the first evaluation of a session: what of its prompt was computed before, and how far the rest has come, on
// a bar if `shown`.
class PromptProgress final : public ForwardObserver {
 public:
  explicit PromptProgress(const Session& session, bool shown = true) : session_(session), shown_(shown) {}
  void on_step(std::span<const RowInfo> rows) override;
  void on_layer(Index layer, TensorView<const float, 2> x) override;
  void end() { bar_.reset(); }

  Index kept() const noexcept { return kept_; }          // tokens
  Index computed() const noexcept { return computed_; }  // tokens, queued at the first step

 private:
  const Session& session_;
  bool shown_, begun_ = false;
  Index kept_ = 0, computed_ = 0, done_ = 0;
  std::optional<ProgressBar> bar_;
};

}  // namespace mixtral::cli
