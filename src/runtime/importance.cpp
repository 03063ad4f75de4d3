#include "mixtral/runtime/importance.hpp"

#include <algorithm>
#include <numeric>

#include "mixtral/core/float_environment.hpp"

namespace mixtral {

void Importance::Squares::add(const float* row, Index n) {
  sums.resize(static_cast<std::size_t>(n));
  for (std::size_t k = 0; k < sums.size(); ++k) sums[k] += static_cast<double>(row[k]) * static_cast<double>(row[k]);
}

std::vector<float> Importance::Squares::importance() const {
  const FloatScope floats;
  constexpr double kForAll = 0.05;  // of the mean over channels
  const double all = std::accumulate(sums.begin(), sums.end(), 0.0);
  if (!(all > 0)) return {};
  std::vector<float> out(sums.size());
  const double mean = all / static_cast<double>(sums.size());
  // In units of the mean: scales do not matter to the quantiser, but the range of float32 does.
  std::transform(sums.begin(), sums.end(), out.begin(),
                 [&](double sum) { return static_cast<float>(sum / mean + kForAll); });
  return out;
}

Importance::Importance(const ModelConfig& config) : layers_(static_cast<std::size_t>(config.n_layers)) {
  for (Layer& layer : layers_) layer.experts.resize(static_cast<std::size_t>(config.n_experts));
}

std::vector<float> Importance::of(const TensorSlot& slot) const {
  using enum TensorKind;
  if (slot.kind == kHead) return head_.importance();
  if (slot.layer < 0 || slot.layer >= static_cast<Index>(layers_.size())) return {};
  const Layer& layer = layers_[static_cast<std::size_t>(slot.layer)];
  const auto expert = [&]() -> const Expert& { return layer.experts.at(static_cast<std::size_t>(slot.expert)); };
  switch (slot.kind) {
    case kWq:
    case kWk:
    case kWv: return layer.h.importance();
    case kWo: return layer.attended.importance();
    case kW1:
    case kW3: return expert().h.importance();
    case kW2: return expert().hidden.importance();
    default: return {};
  }
}

void Importance::on_attention_norm(Index layer, TensorView<const float, 2> h) {
  for (Index t = 0; t < h.dim(0); ++t) layers_[static_cast<std::size_t>(layer)].h.add(h.row(t), h.dim(1));
}
void Importance::on_attended(Index layer, TensorView<const float, 2> values) {
  Squares& squares = layers_[static_cast<std::size_t>(layer)].attended;
  for (Index t = 0; t < values.dim(0); ++t) squares.add(values.row(t), values.dim(1));
}
void Importance::on_expert(Index layer, const moe::ExpertRows& rows) {
  Expert& expert = layers_[static_cast<std::size_t>(layer)].experts[static_cast<std::size_t>(rows.expert)];
  for (std::size_t i = 0; i < rows.tokens.size(); ++i) {
    expert.h.add(rows.h.row(rows.tokens[i]), rows.h.dim(1));
    expert.hidden.add(rows.hidden.row(static_cast<Index>(i)), rows.hidden.dim(1));
  }
}
void Importance::on_final_norm(TensorView<const float, 2> x) {
  for (Index t = 0; t < x.dim(0); ++t) head_.add(x.row(t), x.dim(1));
}

}  // namespace mixtral
