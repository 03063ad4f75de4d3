// A model's copy with coarse weights, as quantisation makes one.
#pragma once

#include <cmath>
#include <deque>

#include "support/checkpoint_files.hpp"

namespace mixtral::test {

// Every matrix but the router as float32 with `bits` binary digits; 24 change nothing.
struct CoarseModel {
  CoarseModel(const Model& fine, int bits) : model{fine.config, Weights(fine.config)} {
    for_each_tensor(fine.config, [&](const TensorSlot& slot, const Shape<2>& shape) {
      const bool kept = is_vector(slot.kind) || slot.kind == TensorKind::kRouter;
      Matrix<float>& copy = store.emplace_back(shape);
      for (Index r = 0; r < shape[0]; ++r) {
        for (Index c = 0; c < shape[1]; ++c) {
          const float x = value(fine.weights.at(slot), r, c);
          copy.row(r)[c] = kept ? x : rounded(x, bits);
        }
      }
      model.weights.at(slot) = copy.view();
    });
  }

  static float rounded(float x, int bits) {
    int exponent = 0;
    const float fraction = std::frexp(x, &exponent);
    return std::ldexp(std::round(std::ldexp(fraction, bits)), exponent - bits);
  }

  std::deque<Matrix<float>> store;
  Model model;
};

}  // namespace mixtral::test
