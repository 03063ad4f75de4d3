// Which input channels of each weight matrix matter: what a quantiser may err on least.
#pragma once

#include <span>
#include <vector>

#include "mixtral/model/forward_observer.hpp"
#include "mixtral/model/weights.hpp"

namespace mixtral {

// Adds up the squares of what each matrix multiplies while texts run through the model (as the diagonal of the Hessian
// in "Optimal Brain Surgeon", Hassibi and Stork 1993, and of GPTQ, Frantar et al. 2022). An observer of any step:
//
//   Importance importance(model.config());
//   Session session(model);
//   session.feed(text);
//   session.eval(&importance, [](Index, TensorView<const float, 2>) {});   // with all logits: the head counts, too
//   options.importance = [&](const TensorSlot& slot) { return importance.of(slot); };   // PackOptions
class Importance : public ForwardObserver {
 public:
  explicit Importance(const ModelConfig& config);

  // [cols] of the matrix: the mean square of each input channel, and a little for all, so that a channel that these
  // texts left silent still counts. Empty for an expert that no token reached and for what is not packed.
  std::vector<float> of(const TensorSlot& slot) const;

  void on_attention_norm(Index layer, TensorView<const float, 2> h) override;
  void on_attended(Index layer, TensorView<const float, 2> values) override;
  void on_expert(Index layer, const moe::ExpertRows& rows) override;
  void on_final_norm(TensorView<const float, 2> x) override;

 private:
  // Of the inputs of one matrix.
  struct Squares {
    std::vector<double> sums;

    void add(const float* row, Index n);
    std::vector<float> importance() const;
  };
  struct Expert {
    Squares h, hidden;
  };
  struct Layer {
    Squares h, attended;
    std::vector<Expert> experts;
  };

  std::vector<Layer> layers_;
  Squares head_;
};

}  // namespace mixtral
