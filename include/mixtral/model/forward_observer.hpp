// A look into the forward pass: statistics, `eval`, tests.
#pragma once

#include "mixtral/core/tensor.hpp"
#include "mixtral/moe/moe_layer.hpp"

namespace mixtral {

// Called on the thread that runs the step, in the order of the model; n rows are those of the step. The views
// are valid during the call only. An exception ends the step as any other error does.
class ForwardObserver {
 public:
  virtual ~ForwardObserver() = default;
  virtual void on_embedding(TensorView<const float, 2> /*x*/) {}                        // [n, dim]
  virtual void on_attention_norm(Index /*layer*/, TensorView<const float, 2> /*h*/) {}  // [n, dim]: what wq, wk, wv get
  virtual void on_attended(Index /*layer*/, TensorView<const float, 2> /*values*/) {}  // [n, heads * head_dim]: wo gets
  virtual void on_attention(Index /*layer*/, TensorView<const float, 2> /*out*/) {}    // [n, dim], before the residual
  virtual void on_routing(Index /*layer*/, const RouterOutput& /*routing*/) {}         // see RouterOutput
  virtual void on_expert(Index /*layer*/, const moe::ExpertRows& /*rows*/) {}          // each expert that has tokens
  virtual void on_layer(Index /*layer*/, TensorView<const float, 2> /*x*/) {}          // [n, dim], residual stream
  virtual void on_final_norm(TensorView<const float, 2> /*x*/) {}                      // [m, dim], rows with logits
};

}  // namespace mixtral
