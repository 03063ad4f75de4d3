#include "mixtral/runtime/evaluator.hpp"

#include <algorithm>
#include <cmath>

#include "mixtral/core/float_environment.hpp"

namespace mixtral {
namespace {

template <class T>
void append(std::vector<T>& out, TensorView<const std::type_identity_t<T>, 2> rows) {
  for (Index t = 0; t < rows.dim(0); ++t) out.insert(out.end(), rows.row(t), rows.row(t) + rows.dim(1));
}

// -log softmax(logits)[target], in double.
double negative_log_likelihood(std::span<const float> logits, TokenId target) {
  const auto largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double total = 0;
  for (const float x : logits) total += std::exp(static_cast<double>(x) - largest);
  return std::log(total) + largest - static_cast<double>(logits[static_cast<std::size_t>(target)]);
}

}  // namespace

// Passes routing on to the totals and, if asked, keeps everything.
class Evaluator::Recorder final : public ForwardObserver {
 public:
  Recorder(Evaluator& totals, SequenceTrace* trace) : totals_(totals), trace_(trace) {
    if (trace_ != nullptr) {
      *trace_ = {};
      trace_->layers.resize(static_cast<std::size_t>(totals.model_.config().n_layers));
    }
  }

  void on_embedding(TensorView<const float, 2> x) override {
    if (trace_ != nullptr) append(trace_->embed, x);
  }
  void on_routing(Index layer, const moe::RoutingView& r) override {
    totals_.routing_.on_routing(layer, r);
    totals_.balance_.add<float>(r.logits, r.experts);
    if (trace_ == nullptr) return;
    SequenceTrace::Layer& kept = trace_->layers[static_cast<std::size_t>(layer)];
    append(kept.router_logits, r.logits);
    append(kept.expert_ids, r.experts);
    append(kept.expert_weights, r.weights);
  }
  void on_layer(Index layer, TensorView<const float, 2> x) override {
    if (trace_ != nullptr) append(trace_->layers[static_cast<std::size_t>(layer)].output, x);
  }
  void on_final_norm(TensorView<const float, 2> x) override {
    if (trace_ != nullptr) append(trace_->final_norm, x);
  }
  void on_logits(Index first, TensorView<const float, 2> logits, std::span<const TokenId> targets) {
    const FloatScope floats;
    for (Index t = 0; t < logits.dim(0) && first + t < static_cast<Index>(targets.size()); ++t) {
      const double nll = negative_log_likelihood(logits.row_span(t), targets[static_cast<std::size_t>(first + t)]);
      totals_.nll_ += nll;
      ++totals_.n_targets_;
      if (trace_ != nullptr) trace_->token_nll.push_back(static_cast<float>(nll));
    }
    if (trace_ != nullptr) append(trace_->logits, logits);
  }

 private:
  Evaluator& totals_;
  SequenceTrace* trace_;
};

Evaluator::Evaluator(const LoadedModel& model, DType kv_dtype)
    : model_(model), kv_dtype_(kv_dtype), routing_(model.config()), balance_(model.config().n_experts) {}

void Evaluator::run(std::span<const TokenId> inputs, std::span<const TokenId> targets, SequenceTrace* trace,
                    const Progress& progress) {
  require(targets.size() <= inputs.size(), "evaluate: ", targets.size(), " targets for ", inputs.size(), " inputs");
  for (const TokenId id : targets) {
    require(id >= 0 && id < model_.config().vocab_size, "evaluate: target ", id, " is outside the vocabulary of ",
            model_.config().vocab_size);
  }
  Session session(model_, {.kv_dtype = kv_dtype_});
  session.feed(inputs);
  Recorder recorder(*this, trace);
  session.eval(&recorder, [&](Index first, TensorView<const float, 2> logits) {
    recorder.on_logits(first, logits, targets);
    if (progress) progress(first + logits.dim(0));
  });
}

std::optional<double> Evaluator::cross_entropy() const noexcept {
  if (n_targets_ == 0) return std::nullopt;
  const FloatScope floats;
  return nll_ / static_cast<double>(n_targets_);
}

}  // namespace mixtral
