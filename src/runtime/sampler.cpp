// The sampler: filters on a list of candidates, in double precision.
#include "mixtral/runtime/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mixtral/core/error.hpp"
#include "mixtral/core/float_environment.hpp"

namespace mixtral {
namespace {

constexpr double kNone = -std::numeric_limits<double>::infinity();

bool likelier(const TokenProbability& a, const TokenProbability& b) {
  return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
}

void normalise(std::vector<TokenProbability>& kept) {
  double total = 0;
  for (const TokenProbability& t : kept) total += t.probability;
  for (TokenProbability& t : kept) t.probability /= total;
}

}  // namespace

void SamplerOptions::validate() const {
  const FloatScope floats;  // comparing a NaN may trap
  require(std::isfinite(temperature) && temperature >= 0, "sampler: temperature is ", temperature, ", expected >= 0");
  require(top_k >= 0, "sampler: top_k is ", top_k, ", expected >= 0");
  require(top_p > 0 && top_p <= 1, "sampler: top_p is ", top_p, ", expected above 0 and at most 1");
  require(min_p >= 0 && min_p <= 1, "sampler: min_p is ", min_p, ", expected 0 to 1");
  require(std::isfinite(repetition_penalty) && repetition_penalty > 0, "sampler: repetition_penalty is ",
          repetition_penalty, ", expected > 0");
}

Sampler::Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) { options.validate(); }

// Fills kept_ with the ids that have a usable logit, and their penalised logits.
void Sampler::collect(std::span<const float> logits, std::span<const TokenId> history) {
  if (options_.repetition_penalty != 1.0f) {
    seen_.assign(logits.size(), 0);
    for (const TokenId id : history) {
      const auto i = static_cast<std::size_t>(id);  // a negative id becomes a large number
      if (i >= logits.size() || seen_[i] != 0) continue;
      seen_[i] = 1;
      penalised_[i] *= penalised_[i] > 0 ? 1 / options_.repetition_penalty : options_.repetition_penalty;
    }
  }
  kept_.clear();
  for (std::size_t i = 0; i < penalised_.size(); ++i) {
    if (penalised_[i] > kNone) kept_.push_back({static_cast<TokenId>(i), static_cast<double>(penalised_[i])});
  }
  require(!kept_.empty(), "sampler: none of ", logits.size(), " tokens has a logit above -infinity");
}

// A heap gives the likeliest first without sorting the whole vocabulary.
void Sampler::keep_top_p() {
  const auto less_likely = [](const TokenProbability& a, const TokenProbability& b) { return likelier(b, a); };
  std::make_heap(kept_.begin(), kept_.end(), less_likely);
  double total = 0;
  auto end = kept_.end();
  while (end != kept_.begin() && total < static_cast<double>(options_.top_p)) {
    std::pop_heap(kept_.begin(), end, less_likely);
    total += (--end)->probability;
  }
  kept_.erase(kept_.begin(), end);
}

std::span<const TokenProbability> Sampler::distribution(std::span<const float> logits, std::span<const TokenId> history,
                                                        const LogitsEditor& edit) {
  penalised_.assign(logits.begin(), logits.end());
  if (edit) edit(penalised_);
  const FloatScope floats;
  collect(logits, history);
  const auto best = *std::min_element(kept_.begin(), kept_.end(), likelier);
  if (options_.temperature == 0) {
    kept_.assign(1, {best.id, 1.0});
    return kept_;
  }
  if (options_.top_k > 0 && static_cast<std::size_t>(options_.top_k) < kept_.size()) {
    const auto end = kept_.begin() + options_.top_k;
    std::nth_element(kept_.begin(), end - 1, kept_.end(), likelier);
    kept_.erase(end, kept_.end());
  }
  for (TokenProbability& t : kept_) {  // the test for equality also serves an infinite logit
    t.probability = t.probability == best.probability
                        ? 1.0
                        : std::exp((t.probability - best.probability) / static_cast<double>(options_.temperature));
  }
  normalise(kept_);
  if (options_.top_p < 1) {
    keep_top_p();
    normalise(kept_);
  }
  if (options_.min_p > 0) {
    const double least =
        static_cast<double>(options_.min_p) * std::min_element(kept_.begin(), kept_.end(), likelier)->probability;
    std::erase_if(kept_, [&](const TokenProbability& t) { return t.probability < least; });
    normalise(kept_);
  }
  return kept_;
}

TokenId Sampler::sample(std::span<const float> logits, std::span<const TokenId> history, const LogitsEditor& edit) {
  const auto kept = distribution(logits, history, edit);
  if (kept.size() == 1) return kept[0].id;
  const FloatScope floats;
  // 53 random bits: the standard's distributions may differ between libraries.
  double left = static_cast<double>(random_() >> 11) * 0x1p-53;
  for (const TokenProbability& t : kept) {
    left -= t.probability;
    if (left < 0) return t.id;
  }
  return kept.back().id;  // rounding used up the rest
}

}  // namespace mixtral
