// The frequencies of RoPE, and how a model that reads longer contexts than it was first trained for changes them.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string_view>

#include "mixtral/core/error.hpp"
#include "mixtral/core/types.hpp"

namespace mixtral {

struct RopeScaling {
  enum class Kind {
    kNone,
    kLinear,  // every frequency is divided by `factor`, as if the position were
    kYarn,    // only the low ones are, those between in part (Peng et al. 2023, arXiv 2309.00071)
  };

  Kind kind = Kind::kNone;
  float factor = 1;
  float attention_factor = 1;  // cos and sin are multiplied by it
  // Of kYarn alone. A pair that turns more than beta_fast times in the original context keeps its frequency, one that
  // turns less than beta_slow times has it divided.
  Index original_max_positions = 0;
  float beta_fast = 32, beta_slow = 1;
  bool truncate = true;  // the ramp between them begins and ends at whole pairs

  bool operator==(const RopeScaling&) const = default;

  // Throws Error(kInvalidArgument) that names the field and its value.
  void validate(double theta) const;
};

// The attention_factor of kYarn where a checkpoint gives none; with `mscale`, a part of it.
inline double yarn_attention_factor(double factor, double mscale = 1) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

// As Hugging Face and GGUF call it.
constexpr std::string_view name_of(RopeScaling::Kind kind) noexcept {
  return kind == RopeScaling::Kind::kNone ? "none" : kind == RopeScaling::Kind::kLinear ? "linear" : "yarn";
}

inline void RopeScaling::validate(double theta) const {
  if (kind == Kind::kNone) return;
  const auto require_positive = [](const char* name, float value) {
    require(std::isfinite(value) && value > 0, "rope_scaling: ", name, " is ", value, ", expected a finite number > 0");
  };
  require_positive("factor", factor);
  require_positive("attention_factor", attention_factor);
  if (kind == Kind::kLinear) return;
  require(original_max_positions >= 1 && original_max_positions <= Index{1} << 30,
          "rope_scaling: original_max_positions is ", original_max_positions, ", expected 1 to ", Index{1} << 30);
  require_positive("beta_fast", beta_fast);
  require_positive("beta_slow", beta_slow);
  require(beta_fast >= beta_slow, "rope_scaling: beta_fast is ", beta_fast, ", beta_slow ", beta_slow,
          ", expected no more than beta_fast");
  require(theta > 1, "rope_scaling: rope_theta is ", theta, ", yarn needs more than 1");
}

// Radians that each pair of a head turns in one position.
class RopeFrequencies {
 public:
  // Throws Error(kInvalidArgument).
  RopeFrequencies(Index head_dim, double theta, const RopeScaling& scaling = {})
      : head_dim_(head_dim), theta_(theta), scaling_(scaling) {
    require(head_dim > 0 && head_dim % 2 == 0, "rope: head_dim is ", head_dim, ", expected an even number > 0");
    scaling.validate(theta);
    if (scaling.kind == RopeScaling::Kind::kYarn) find_ramp();
  }

  Index head_dim() const noexcept { return head_dim_; }

  // Of pair i in [0, head_dim / 2).
  double operator()(Index i) const {
    const double original = std::pow(theta_, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim_));
    if (scaling_.kind == RopeScaling::Kind::kNone) return original;
    const double divided = original / static_cast<double>(scaling_.factor);
    if (scaling_.kind == RopeScaling::Kind::kLinear) return divided;
    constexpr double kLeastWidth = 0.001;  // of a ramp whose ends are the same pair
    const double share =
        std::clamp((static_cast<double>(i) - low_) / std::max(high_ - low_, kLeastWidth), 0.0, 1.0);  // that is divided
    return divided * share + original * (1 - share);
  }

  // What cos and sin of the angles are multiplied by.
  double magnitude() const noexcept {
    return scaling_.kind == RopeScaling::Kind::kNone ? 1 : static_cast<double>(scaling_.attention_factor);
  }

 private:
  // The paper's ramp is linear in the number of turns; its authors' code, transformers and llama.cpp make it linear in
  // the pair, and so do we: that is how checkpoints were trained. llama.cpp always rounds its ends outwards to whole
  // pairs, transformers unless `truncate` is false; both bound them as here.
  void find_ramp() {
    const auto dim = static_cast<double>(head_dim_);
    const auto pair_with = [&](float turns) {  // in the original context
      const double context = static_cast<double>(scaling_.original_max_positions);
      return dim * std::log(context / (static_cast<double>(turns) * 2 * std::numbers::pi)) / (2 * std::log(theta_));
    };
    low_ = pair_with(scaling_.beta_fast);
    high_ = pair_with(scaling_.beta_slow);
    if (scaling_.truncate) {
      low_ = std::floor(low_);
      high_ = std::ceil(high_);
    }
    low_ = std::max(low_, 0.0);
    high_ = std::min(high_, dim - 1);
  }

  Index head_dim_;
  double theta_;
  RopeScaling scaling_;
  double low_ = 0, high_ = 0;  // pairs between which the frequencies go over from their own to the divided ones
};

}  // namespace mixtral
