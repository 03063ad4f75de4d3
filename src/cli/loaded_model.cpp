#include "cli/loaded_model.hpp"

#include <unistd.h>

#include <cstdio>

namespace mixtral::cli {

LoadedModel load_model(const CommonOptions& options, Head head) {
  ProgressBar bar("open");
  LoadedModel loaded(options.model, {.isa = isa_of(options),
                                     .bf16_products = bf16_products_of(options),
                                     .threads = options.threads,
                                     .resident = options.resident,
                                     .import = import_of(options),
                                     .progress = [&](Index done, Index all) { bar.show(done, all); },
                                     .head = head});
  bar.finish();
  for (const std::string& note : loaded.checkpoint.notes) write_message("mixtral: note: " + note);
  return loaded;
}

ProgressBar::ProgressBar(std::string name, Index total)
    : name_(std::move(name)), total_(std::max<Index>(total, 1)), active_(::isatty(STDERR_FILENO) == 1) {}

void ProgressBar::show(Index done) {
  const auto now = std::chrono::steady_clock::now();
  if (!active_ || now < next_) return;
  next_ = now + std::chrono::milliseconds(100);
  constexpr Index kWidth = 40;
  const double part = static_cast<double>(std::min(done, total_)) / static_cast<double>(total_);  // bytes: no overflow
  const auto filled = static_cast<std::size_t>(part * kWidth);
  std::fprintf(stderr, "\r%s [%s%s] %3d%%", name_.c_str(), std::string(filled, '#').c_str(),
               std::string(kWidth - filled, ' ').c_str(), static_cast<int>(part * 100));
  std::fflush(stderr);
  drawn_ = true;
}

void ProgressBar::show(Index done, Index total) {
  total_ = std::max<Index>(total, 1);
  show(done);
}

void ProgressBar::finish() {
  if (drawn_) std::fprintf(stderr, "\r\033[K");
  active_ = drawn_ = false;
}

void PromptProgress::on_step(std::span<const RowInfo> /*rows*/) {
  if (std::exchange(begun_, true)) return;
  kept_ = session_.length();
  computed_ = static_cast<Index>(session_.tokens().size()) - kept_;
  if (shown_) bar_.emplace("prompt", computed_ * session_.model().config.n_layers);
}

void PromptProgress::on_layer(Index /*layer*/, TensorView<const float, 2> x) {
  if (bar_) bar_->show(done_ += x.dim(0));
}

}  // namespace mixtral::cli
