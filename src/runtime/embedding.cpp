#include "mixtral/runtime/embedding.hpp"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numeric>

#include "mixtral/core/float_environment.hpp"

namespace mixtral {

std::string_view name_of(Pooling pooling) noexcept { return pooling == Pooling::kMean ? "mean" : "last"; }

Embedder::Embedder(const LoadedModel& model, const SessionOptions& options)
    : loaded_(model),
      chunk_(options.chunk),
      cache_(kv_layout(model.config(), options.kv_dtype), 1,
             (model.config().max_positions + KvLayout::kPositions - 1) / KvLayout::kPositions),
      slot_(cache_.open()) {
  require(chunk_ > 0, "embedder: chunk ", chunk_);
}

void Embedder::require_text(std::span<const TokenId> tokens, Index layer) const {
  const ModelConfig& c = loaded_.config();
  require(!tokens.empty(), "embedder: no tokens");
  require(static_cast<Index>(tokens.size()) <= c.max_positions, ErrorCode::kContextFull, "embedder: ", tokens.size(),
          " tokens do not fit into a context of ", c.max_positions);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    require(tokens[i] >= 0 && tokens[i] < c.vocab_size, "embedder: token ", tokens[i], " at index ", i,
            " is outside the vocabulary of ", c.vocab_size);
  }
  require(layer == kFinalHidden || (layer >= 0 && layer <= c.n_layers), "embedder: layer ", layer, ", expected 0 to ",
          c.n_layers, ", or ", kFinalHidden, " for what the head reads");
}

Matrix<float> Embedder::hidden(std::span<const TokenId> tokens, Index layer) {
  require_text(tokens, layer);
  const Model& model = loaded_.model();
  const OpContext ctx{loaded_.table, *loaded_.executor, scratch_};
  const auto n = static_cast<Index>(tokens.size());
  const Index n_layers = layer == kFinalHidden ? model.config.n_layers : layer;
  Matrix<float> out(Shape<2>{{n, model.config.dim}});
  cache_.truncate(slot_, 0);
  for (Index begin = 0; begin < n; begin += chunk_) {
    const Index count = std::min(chunk_, n - begin);
    const std::lock_guard turn(*loaded_.turns);
    const ScratchScope scope(scratch_);
    const std::span<Index> positions(scratch_.take<Index>(count), static_cast<std::size_t>(count));
    std::iota(positions.begin(), positions.end(), begin);
    const std::span<SlotId> slots(scratch_.take<SlotId>(count), static_cast<std::size_t>(count));
    std::fill(slots.begin(), slots.end(), slot_);
    const TensorView<float, 2> x = out.view().rows(begin, count);
    cache_.reserve(slot_, count);
    forward_.embed(ctx, model, tokens.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count)), x);
    forward_.layers(ctx, model, {.positions = positions, .slots = slots}, 0, n_layers, cache_, x);
    cache_.commit(slot_, count);
    if (layer == kFinalHidden) ops::rms_norm(ctx, x, model.weights.final_norm, model.config.norm_eps, x);
  }
  return out;
}

std::vector<float> Embedder::embed(std::span<const TokenId> tokens, Pooling pooling, Index layer) {
  const Matrix<float> rows = hidden(tokens, layer);
  const FloatScope floats;
  const Index n = rows.dim(0), dim = rows.dim(1);
  std::vector<double> sum(static_cast<std::size_t>(dim), 0);
  for (Index t = pooling == Pooling::kMean ? 0 : n - 1; t < n; ++t) {
    for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += static_cast<double>(rows.row(t)[k]);
  }
  const double length = std::sqrt(std::inner_product(sum.begin(), sum.end(), sum.begin(), 0.0));
  std::vector<float> out(sum.size());
  std::transform(sum.begin(), sum.end(), out.begin(),
                 [&](double x) { return static_cast<float>(length > 0 ? x / length : 0); });
  return out;
}

}  // namespace mixtral
