// From logits to the next token.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <vector>

#include "mixtral/core/types.hpp"

namespace mixtral {

// Applied in this order: repetition penalty, temperature, top_k, top_p, min_p, softmax over what is left.
struct SamplerOptions {
  float temperature = 1.0f;         // 0: greedy, the filters are then without effect
  Index top_k = 0;                  // keep the k likeliest; 0: all
  float top_p = 1.0f;               // keep the fewest likeliest that add up to top_p (Holtzman et al. 2020); 1: all
  float min_p = 0.0f;               // drop what is less likely than min_p times the likeliest; 0: none
  float repetition_penalty = 1.0f;  // divides positive logits of seen tokens, multiplies negative (Keskar et al. 2019)
  std::uint64_t seed = 0;

  // Throws Error(kInvalidArgument) that names the option and its value.
  void validate() const;
};

// May change a copy of the logits before a token is drawn: ban with -infinity, bias.  [vocab_size]
using LogitsEditor = std::function<void(std::span<float> logits)>;

struct TokenProbability {
  TokenId id;
  double probability;
};

// Draws tokens. The same seed, logits and history give the same tokens on every platform.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);

  // The distribution after all filters, without drawing: the kept tokens in an unspecified order, adding up
  // to 1. `history` are the tokens that the repetition penalty has seen. A NaN logit counts as -infinity; equal
  // logits at a filter's edge are kept from the lower id on. Throws Error(kInvalidArgument) if no logit is
  // greater than -infinity. Valid until the next call.
  std::span<const TokenProbability> distribution(std::span<const float> logits, std::span<const TokenId> history = {},
                                                 const LogitsEditor& edit = {});

  // Draws from it (greedy: the largest logit, ties to the lower id). Whatever is thrown, the next call draws what this
  // one would have drawn.
  TokenId sample(std::span<const float> logits, std::span<const TokenId> history = {}, const LogitsEditor& edit = {});

  // Starts the random numbers anew from the seed.
  void restart() { random_.seed(options_.seed); }
  const SamplerOptions& options() const noexcept { return options_; }

 private:
  void collect(std::span<const float> logits, std::span<const TokenId> history);
  void keep_top_p();

  SamplerOptions options_;
  std::mt19937_64 random_;
  std::vector<float> penalised_;
  std::vector<std::uint8_t> seen_;
  std::vector<TokenProbability> kept_;  // while filtering: `probability` holds the logit
};

}  // namespace mixtral
