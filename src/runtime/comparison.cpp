#include "mixtral/runtime/comparison.hpp"

#include <algorithm>
#include <cmath>

#include "mixtral/core/float_environment.hpp"
#include "mixtral/runtime/session.hpp"

namespace mixtral {
namespace {

// log of the sum of exp(logits), in double.
double log_sum_exp(std::span<const float> logits) {
  const auto largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double total = 0;
  for (const float x : logits) total += std::exp(static_cast<double>(x) - largest);
  return std::log(total) + largest;
}

// Of sorted values; percent in [1, 100].
double nearest_rank(std::span<const double> sorted, std::size_t percent) {
  return sorted[(percent * sorted.size() + 99) / 100 - 1];
}

// Standard error of the mean.
double error_of_mean(std::span<const double> values, double mean) {
  const auto n = static_cast<double>(values.size());
  double squares = 0;
  for (const double x : values) squares += (x - mean) * (x - mean);
  return n < 2 ? 0 : std::sqrt(squares / (n - 1) / n);
}

// The 95 % interval of the 99th percentile: how many values lie below it has a binomial distribution.
void bound_p99(std::span<const double> sorted, Distribution& out) {
  const auto n = static_cast<double>(sorted.size());
  const double middle = 0.99 * n, width = 1.96 * std::sqrt(0.99 * 0.01 * n);
  out.p99_low = sorted[static_cast<std::size_t>(std::max(std::floor(middle - width), 0.0))];
  out.p99_high = sorted[static_cast<std::size_t>(std::min(std::ceil(middle + width), n - 1))];
}

// The gap between the k-th and the (k+1)-th largest.
float router_margin(std::span<const float> logits, std::span<const ExpertId> chosen) {
  float next = -std::numeric_limits<float>::infinity();
  for (std::size_t e = 0; e < logits.size(); ++e) {
    const bool out = std::find(chosen.begin(), chosen.end(), static_cast<ExpertId>(e)) == chosen.end();
    if (out && std::isfinite(logits[e])) next = std::max(next, logits[e]);
  }
  return std::isfinite(next) ? logits[static_cast<std::size_t>(chosen.back())] - next : 0;
}

void require_same(const char* name, Index model, Index reference) {
  require(model == reference, "compare: the model has ", name, " ", model, ", the reference ", reference);
}

GatingStability stability_of(std::span<const std::vector<ComparedChoice>> layers) {
  GatingStability out;
  std::vector<double> same, differing;
  for (const std::vector<ComparedChoice>& layer : layers) {
    for (const ComparedChoice& choice : layer) {
      ++out.n;
      out.n_same_set += choice.same_set ? 1 : 0;
      out.n_same_first += choice.same_first ? 1 : 0;
      (choice.same_set ? same : differing).push_back(static_cast<double>(choice.margin));
    }
  }
  out.margin_where_same = distribution_of(std::move(same));
  out.margin_where_differing = distribution_of(std::move(differing));
  return out;
}

}  // namespace

ComparedPosition compare_logits(std::span<const float> reference, std::span<const float> model, TokenId target) {
  const FloatScope floats;
  const auto at = static_cast<std::size_t>(target);
  const double reference_total = log_sum_exp(reference), model_total = log_sum_exp(model);
  ComparedPosition out;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const double log_p = static_cast<double>(reference[i]) - reference_total;
    const double log_q = static_cast<double>(model[i]) - model_total;
    out.kl += std::exp(log_p) * (log_p - log_q);
  }
  if (out.kl < 0) out.kl = 0;  // rounding, where the two are almost the same
  out.reference_nll = reference_total - static_cast<double>(reference[at]);
  out.model_nll = model_total - static_cast<double>(model[at]);
  const auto top1 = [](std::span<const float> x) { return std::max_element(x.begin(), x.end()) - x.begin(); };
  out.same_top1 = top1(reference) == top1(model);
  return out;
}

ComparedChoice compare_choices(std::span<const float> reference_logits, std::span<const ExpertId> reference_experts,
                               std::span<const ExpertId> model_experts) {
  const FloatScope floats;
  const bool same_set = std::all_of(reference_experts.begin(), reference_experts.end(), [&](ExpertId e) {
    return std::find(model_experts.begin(), model_experts.end(), e) != model_experts.end();
  });
  return {router_margin(reference_logits, reference_experts), same_set, reference_experts[0] == model_experts[0]};
}

Distribution distribution_of(std::vector<double> values) {
  if (values.empty()) return {};
  const FloatScope floats;
  Distribution out;
  out.n = static_cast<Index>(values.size());
  for (const double x : values) out.mean += x;
  out.mean /= static_cast<double>(values.size());
  out.mean_error = error_of_mean(values, out.mean);
  std::sort(values.begin(), values.end());
  out.median = nearest_rank(values, 50);
  out.p90 = nearest_rank(values, 90);
  out.p99 = nearest_rank(values, 99);
  out.max = values.back();
  bound_p99(values, out);
  return out;
}

std::vector<PositionBucket> kl_by_position(std::span<const ComparedPosition> positions, Index n_buckets) {
  require(n_buckets > 0, "compare: ", n_buckets, " buckets of positions");
  Index length = 0;
  for (const ComparedPosition& p : positions) length = std::max(length, p.position + 1);
  const Index width = std::max<Index>((length + n_buckets - 1) / n_buckets, 1);
  std::vector<std::vector<double>> values(static_cast<std::size_t>((length + width - 1) / width));
  for (const ComparedPosition& p : positions) values[static_cast<std::size_t>(p.position / width)].push_back(p.kl);
  std::vector<PositionBucket> out;
  for (std::vector<double>& bucket : values) {
    const Index begin = width * static_cast<Index>(out.size());
    out.push_back({begin, std::min(begin + width, length), distribution_of(std::move(bucket))});
  }
  return out;
}

// What the reference said about one chunk, until the model has read it, too.
class Comparison::Chunk {
 public:
  explicit Chunk(Comparison& totals, std::span<const TokenId> targets)
      : totals_(totals), targets_(targets), layers_(totals.choices_.size()) {}

  class Reference final : public ForwardObserver {
   public:
    explicit Reference(Chunk& chunk) : chunk_(chunk) {}
    void on_routing(Index layer, const moe::RoutingView& r) override {
      Layer& kept = chunk_.layers_[static_cast<std::size_t>(layer)];
      kept.logits.clear();
      kept.experts.clear();
      for (Index t = 0; t < r.logits.dim(0); ++t) {
        kept.logits.insert(kept.logits.end(), r.logits.row(t), r.logits.row(t) + r.logits.dim(1));
        kept.experts.insert(kept.experts.end(), r.experts.row(t), r.experts.row(t) + r.experts.dim(1));
      }
    }

   private:
    Chunk& chunk_;
  };

  class Compared final : public ForwardObserver {
   public:
    explicit Compared(Chunk& chunk) : chunk_(chunk) {}
    void on_routing(Index layer, const moe::RoutingView& r) override {
      const Layer& kept = chunk_.layers_[static_cast<std::size_t>(layer)];
      std::vector<ComparedChoice>& choices = chunk_.totals_.choices_[static_cast<std::size_t>(layer)];
      const auto n_experts = static_cast<std::size_t>(r.logits.dim(1)), k = static_cast<std::size_t>(r.experts.dim(1));
      for (Index t = 0; t < r.logits.dim(0); ++t) {
        const auto row = static_cast<std::size_t>(t);
        choices.push_back(compare_choices(std::span(kept.logits).subspan(row * n_experts, n_experts),
                                          std::span(kept.experts).subspan(row * k, k), r.experts.row_span(t)));
      }
    }

   private:
    Chunk& chunk_;
  };

  void keep(TensorView<const float, 2> logits) {
    logits_.clear();
    for (Index t = 0; t < logits.dim(0); ++t)
      logits_.insert(logits_.end(), logits.row(t), logits.row(t) + logits.dim(1));
  }

  void compare(Index first, TensorView<const float, 2> logits) {
    const Index n = std::min(logits.dim(0), static_cast<Index>(targets_.size()) - first);
    if (n <= 0) return;
    std::vector<ComparedPosition>& positions = totals_.positions_;
    const std::size_t before = positions.size();
    positions.resize(before + static_cast<std::size_t>(n));
    const auto vocab_size = static_cast<std::size_t>(logits.dim(1));
    totals_.model_.executor->parallel_for(n, [&](Index t, int) {
      const auto row = static_cast<std::size_t>(t);
      ComparedPosition& out = positions[before + row];
      out = compare_logits(std::span(logits_).subspan(row * vocab_size, vocab_size), logits.row_span(t),
                           targets_[static_cast<std::size_t>(first + t)]);
      out.position = first + t;
    });
    for (std::size_t i = before; i < positions.size(); ++i) {
      const ComparedPosition& p = positions[i];
      require(std::isfinite(p.reference_nll), "compare: the reference's logits at position ", p.position,
              " are not finite");
      require(std::isfinite(p.model_nll) && std::isfinite(p.kl), "compare: the model's logits at position ", p.position,
              " are not finite");
    }
  }

 private:
  struct Layer {
    std::vector<float> logits;      // [chunk, n_experts]
    std::vector<ExpertId> experts;  // [chunk, k]
  };

  Comparison& totals_;
  std::span<const TokenId> targets_;
  std::vector<Layer> layers_;  // [n_layers]
  std::vector<float> logits_;  // [chunk, vocab_size]
};

Comparison::Comparison(const LoadedModel& reference, const LoadedModel& model, const ComparisonOptions& options)
    : reference_(reference),
      model_(model),
      options_(options),
      choices_(static_cast<std::size_t>(reference.config().n_layers)) {
  const ModelConfig &r = reference.config(), &m = model.config();
  require(options.chunk > 0, "compare: chunk ", options.chunk);
  require_same("vocab_size", m.vocab_size, r.vocab_size);
  require_same("n_layers", m.n_layers, r.n_layers);
  require_same("n_experts", m.n_experts, r.n_experts);
  require_same("n_experts_per_tok", m.n_experts_per_tok, r.n_experts_per_tok);
}

Index Comparison::max_positions() const noexcept {
  return std::min(reference_.config().max_positions, model_.config().max_positions);
}

void Comparison::require_sequence(std::span<const TokenId> inputs, std::span<const TokenId> targets) const {
  require(targets.size() <= inputs.size(), "compare: ", targets.size(), " targets for ", inputs.size(), " inputs");
  require(static_cast<Index>(inputs.size()) <= max_positions(), ErrorCode::kContextFull, "compare: ", inputs.size(),
          " tokens do not fit into a context of ", max_positions());
  const Index vocab_size = reference_.config().vocab_size;
  for (const TokenId id : targets) {
    require(id >= 0 && id < vocab_size, "compare: target ", id, " is outside the vocabulary of ", vocab_size);
  }
}

void Comparison::truncate(std::size_t n_positions, std::size_t n_inputs) noexcept {
  positions_.erase(positions_.begin() + static_cast<std::ptrdiff_t>(n_positions), positions_.end());
  for (std::vector<ComparedChoice>& layer : choices_) {
    if (layer.size() > n_inputs) layer.erase(layer.begin() + static_cast<std::ptrdiff_t>(n_inputs), layer.end());
  }
}

void Comparison::run(std::span<const TokenId> inputs, std::span<const TokenId> targets, const Progress& progress) {
  require_sequence(inputs, targets);
  const std::size_t n_positions = positions_.size(), n_inputs = choices_[0].size();
  const auto options = [&](DType kv_dtype) {
    return SessionOptions{.max_positions = max_positions(), .chunk = options_.chunk, .kv_dtype = kv_dtype};
  };
  Session reference(reference_, options(options_.reference_kv_dtype));
  Session model(model_, options(options_.kv_dtype));
  Chunk chunk(*this, targets);
  Chunk::Reference reference_routes(chunk);
  Chunk::Compared model_routes(chunk);
  try {
    for (std::size_t begin = 0; begin < inputs.size();) {
      const std::size_t count = std::min(inputs.size() - begin, static_cast<std::size_t>(options_.chunk));
      reference.feed(inputs.subspan(begin, count));
      model.feed(inputs.subspan(begin, count));
      reference.eval(&reference_routes, [&](Index, TensorView<const float, 2> logits) { chunk.keep(logits); });
      model.eval(&model_routes, [&](Index first, TensorView<const float, 2> logits) { chunk.compare(first, logits); });
      begin += count;
      if (progress) progress(static_cast<Index>(begin));
    }
  } catch (...) {
    truncate(n_positions, n_inputs);
    throw;
  }
}

ComparisonResult Comparison::result() const {
  const FloatScope floats;
  ComparisonResult out;
  out.n_inputs = static_cast<Index>(choices_[0].size());
  out.n_targets = static_cast<Index>(positions_.size());
  std::vector<double> kl, differences;
  for (const ComparedPosition& p : positions_) {
    out.reference_cross_entropy += p.reference_nll;
    out.model_cross_entropy += p.model_nll;
    out.n_same_top1 += p.same_top1 ? 1 : 0;
    kl.push_back(p.kl);
    differences.push_back(p.model_nll - p.reference_nll);
  }
  const auto n = static_cast<double>(std::max<Index>(out.n_targets, 1));
  out.reference_cross_entropy /= n;
  out.model_cross_entropy /= n;
  out.difference_error = error_of_mean(differences, out.model_cross_entropy - out.reference_cross_entropy);
  out.kl = distribution_of(std::move(kl));
  out.gating = stability_of(choices_);
  for (const std::vector<ComparedChoice>& layer : choices_) out.layers.push_back(stability_of({&layer, 1}));
  return out;
}

}  // namespace mixtral
