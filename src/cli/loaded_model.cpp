#include "cli/loaded_model.hpp"

#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

namespace mixtral::cli {

LoadedModel load_model(const CommonOptions& options) {
  LoadedModel loaded(options.model, {.isa = isa_of(options),
                                     .bf16_products = bf16_products_of(options),
                                     .threads = options.threads,
                                     .resident = options.resident});
  for (const std::string& note : loaded.checkpoint.notes) write_message("mixtral: note: " + note);
  return loaded;
}

nlohmann::json routes_json(const RoutingStats& stats) {
  nlohmann::json layers = nlohmann::json::array();
  for (Index l = 0; l < stats.n_layers(); ++l) {
    layers.push_back(nlohmann::json::array());
    for (Index e = 0; e < stats.n_experts(); ++e) layers.back().push_back(stats.count(l, e));
  }
  return layers;
}

std::string routes_text(const RoutingStats& stats) {
  std::string out = "\nshare of the tokens' choices per expert (%)\nlayer";
  for (Index e = 0; e < stats.n_experts(); ++e) out += padded(str(e), 6);
  for (Index l = 0; l < stats.n_layers(); ++l) {
    out += str("\n", padded(str(l), 5));
    const auto total = static_cast<double>(std::max<Index>(stats.total(l), 1));
    for (Index e = 0; e < stats.n_experts(); ++e) {
      out += padded(fixed(100 * static_cast<double>(stats.count(l, e)) / total, 1), 6);
    }
  }
  return out + "\n";
}

std::string padded(std::string text, std::size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + text;
}

std::string fixed(double value, int digits) {
  char text[64];
  const int n = std::snprintf(text, sizeof text, "%.*f", digits, value);
  return {text, static_cast<std::size_t>(n)};
}

ProgressBar::ProgressBar(std::string name, Index total)
    : name_(std::move(name)), total_(std::max<Index>(total, 1)), active_(::isatty(STDERR_FILENO) == 1) {}

void ProgressBar::show(Index done) {
  const auto now = std::chrono::steady_clock::now();
  if (!active_ || now < next_) return;
  next_ = now + std::chrono::milliseconds(100);
  constexpr Index kWidth = 40;
  const auto filled = static_cast<std::size_t>(std::min(done, total_) * kWidth / total_);
  std::fprintf(stderr, "\r%s [%s%s] %3d%%", name_.c_str(), std::string(filled, '#').c_str(),
               std::string(kWidth - filled, ' ').c_str(), static_cast<int>(std::min(done, total_) * 100 / total_));
  std::fflush(stderr);
  drawn_ = true;
}

void ProgressBar::finish() {
  if (drawn_) std::fprintf(stderr, "\r\033[K");
  active_ = drawn_ = false;
}

}  // namespace mixtral::cli
