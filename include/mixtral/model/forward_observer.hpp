// A look into the forward pass: statistics, `eval`, tests.
#pragma once

#include <initializer_list>
#include <span>
#include <vector>

#include "mixtral/core/row_info.hpp"
#include "mixtral/core/tensor.hpp"
#include "mixtral/moe/moe_layer.hpp"

namespace mixtral {

// Called on the thread that runs the step, in the order of the model, experts of a layer in the order in which they
// were computed; n rows are those of the step. The views are valid during the call only. An exception ends the step as
// any other error does.
class ForwardObserver {
 public:
  virtual ~ForwardObserver() = default;
  virtual void on_step(std::span<const RowInfo> /*rows*/) {}                            // [n], before all else
  virtual void on_embedding(TensorView<const float, 2> /*x*/) {}                        // [n, dim]
  virtual void on_attention_norm(Index /*layer*/, TensorView<const float, 2> /*h*/) {}  // [n, dim]: what wq, wk, wv get
  virtual void on_attended(Index /*layer*/, TensorView<const float, 2> /*values*/) {}  // [n, heads * head_dim]: wo gets
  virtual void on_attention(Index /*layer*/, TensorView<const float, 2> /*out*/) {}    // [n, dim], before the residual
  virtual void on_routing(Index /*layer*/, const moe::RoutingView& /*routing*/) {}     // see RouterOutput
  virtual void on_expert(Index /*layer*/, const moe::ExpertRows& /*rows*/) {
  }  // each version of an expert that has rows
  virtual void on_layer(Index /*layer*/, TensorView<const float, 2> /*x*/) {}  // [n, dim], residual stream
  virtual void on_final_norm(TensorView<const float, 2> /*x*/) {}              // [m, dim], rows with logits
};

// Several observers as one: each call goes to all of them, in their order. They must outlive it.
class Observers final : public ForwardObserver {
 public:
  Observers(std::initializer_list<ForwardObserver*> all) : all_(all) {}

  void on_step(std::span<const RowInfo> rows) override {
    for (ForwardObserver* o : all_) o->on_step(rows);
  }
  void on_embedding(TensorView<const float, 2> x) override {
    for (ForwardObserver* o : all_) o->on_embedding(x);
  }
  void on_attention_norm(Index layer, TensorView<const float, 2> h) override {
    for (ForwardObserver* o : all_) o->on_attention_norm(layer, h);
  }
  void on_attended(Index layer, TensorView<const float, 2> values) override {
    for (ForwardObserver* o : all_) o->on_attended(layer, values);
  }
  void on_attention(Index layer, TensorView<const float, 2> out) override {
    for (ForwardObserver* o : all_) o->on_attention(layer, out);
  }
  void on_routing(Index layer, const moe::RoutingView& routing) override {
    for (ForwardObserver* o : all_) o->on_routing(layer, routing);
  }
  void on_expert(Index layer, const moe::ExpertRows& rows) override {
    for (ForwardObserver* o : all_) o->on_expert(layer, rows);
  }
  void on_layer(Index layer, TensorView<const float, 2> x) override {
    for (ForwardObserver* o : all_) o->on_layer(layer, x);
  }
  void on_final_norm(TensorView<const float, 2> x) override {
    for (ForwardObserver* o : all_) o->on_final_norm(x);
  }

 private:
  std::vector<ForwardObserver*> all_;
};

}  // namespace mixtral
