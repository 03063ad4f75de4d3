#include "mixtral/runtime/sampler.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <map>

#include "mixtral/core/error.hpp"
#include "support/float_environments.hpp"
#include "support/golden.hpp"

using namespace mixtral;

namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

std::map<TokenId, double> distribution(const SamplerOptions& options, std::vector<float> logits,
                                       std::vector<TokenId> history = {}) {
  std::map<TokenId, double> out;
  Sampler sampler(options);
  for (const auto& [id, probability] : sampler.distribution(logits, history)) out[id] = probability;
  return out;
}

}  // namespace

TEST_CASE("sampler: every golden distribution is met") {
  const auto manifest = test::read_json(test::golden_dir() / "manifest.json");
  const SafetensorsFile data(test::golden_dir() / "sampling/sampling.safetensors");
  const auto logits = test::elements<float>(data, "logits");
  const auto budget = test::tolerance(manifest, "probabilities");
  int distributions = 0;
  for (const auto& entry : manifest.at("cases")) {
    if (entry.at("kind") != "sampling") continue;
    for (const auto& d : entry.at("distributions")) {
      const auto name = d.at("tensor").get<std::string>();
      CAPTURE(name);
      SamplerOptions options;
      options.temperature = d.value("temperature", 1.0f);
      options.top_k = d.value("top_k", Index{0});
      options.top_p = d.value("top_p", 1.0f);
      options.min_p = d.value("min_p", 0.0f);
      std::vector<float> got(logits.size());
      const auto kept = distribution(options, logits);
      for (const auto& [id, probability] : kept) got[static_cast<std::size_t>(id)] = static_cast<float>(probability);
      CHECK(kept.size() == d.at("kept").get<std::size_t>());
      CHECK(test::excess(got, test::elements<float>(data, name), budget) == 0);
      ++distributions;
    }
  }
  CHECK(distributions == 15);
}

TEST_CASE("sampler: temperature 0 takes the largest logit, ties to the lower id") {
  CHECK(distribution({.temperature = 0}, {1, 3, 3, 2}) == std::map<TokenId, double>{{1, 1.0}});
}

TEST_CASE("sampler: equal logits at a filter's edge are kept from the lower id on") {
  const auto kept = distribution({.top_k = 2}, {5, 5, 5, 5});
  CHECK(kept == std::map<TokenId, double>{{0, 0.5}, {1, 0.5}});
  CHECK(distribution({.top_p = 0.5f}, {5, 5, 5, 5}).size() == 2);
}

TEST_CASE("sampler: the repetition penalty divides positive logits and multiplies negative ones, once a token") {
  const auto plain = distribution({}, {1, -4, 0});
  const auto penalised = distribution({.repetition_penalty = 2}, {2, -2, 0}, {0, 0, 1, -7, 99});
  for (const auto& [id, probability] : plain) CHECK(penalised.at(id) == doctest::Approx(probability));
}

TEST_CASE("sampler: tokens without a usable logit are never drawn") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(distribution({}, {nan, kNone, 1, nan}) == std::map<TokenId, double>{{2, 1.0}});
  CHECK(distribution({.temperature = 0}, {nan, -3, kNone}) == std::map<TokenId, double>{{1, 1.0}});
  CHECK(distribution({}, {1, std::numeric_limits<float>::infinity(), 2}).at(1) == 1.0);
  CHECK_THROWS_WITH_AS(distribution({}, {nan, kNone}), "sampler: none of 2 tokens has a logit above -infinity", Error);
}

TEST_CASE("sampler: drawn frequencies follow the distribution, and the seed decides them") {
  const std::vector<float> logits = {0, 1, 2, 3};
  const SamplerOptions options{.temperature = 0.8f, .seed = 5};
  Sampler a(options), b(options), c({.temperature = 0.8f, .seed = 6});
  std::map<TokenId, int> counts;
  constexpr int kDraws = 20000;
  int other = 0;
  for (int i = 0; i < kDraws; ++i) {
    const TokenId id = a.sample(logits);
    CHECK(id == b.sample(logits));
    other += id != c.sample(logits);
    ++counts[id];
  }
  CHECK(other > 0);
  // Five standard deviations of a count of kDraws trials.
  for (const auto& [id, p] : distribution(options, logits)) {
    CHECK(std::abs(counts[id] - p * kDraws) < 5 * std::sqrt(p * (1 - p) * kDraws));
  }
}

TEST_CASE("sampler: options out of range are named") {
  const auto message = [](SamplerOptions options) {
    try {
      Sampler sampler(options);
      return std::string();
    } catch (const Error& e) {
      CHECK(e.code() == ErrorCode::kInvalidArgument);
      return std::string(e.what());
    }
  };
  CHECK(message({.temperature = -1}) == "sampler: temperature is -1, expected >= 0");
  CHECK(message({.temperature = std::numeric_limits<float>::quiet_NaN()}).find("temperature") != std::string::npos);
  CHECK(message({.top_k = -1}).find("top_k is -1") != std::string::npos);
  CHECK(message({.top_p = 0}).find("top_p is 0") != std::string::npos);
  CHECK(message({.top_p = 1.5f}).find("top_p is 1.5") != std::string::npos);
  CHECK(message({.min_p = 2}).find("min_p is 2") != std::string::npos);
  CHECK(message({.repetition_penalty = 0}).find("repetition_penalty is 0") != std::string::npos);
}

TEST_CASE("sampler: what is drawn does not depend on the host's floating-point environment, which the editor sees") {
  std::vector<float> logits;
  for (int i = 0; i < 300; ++i) logits.push_back(static_cast<float>((i * 37) % 101) / 7);
  logits[5] = 1e-40f;
  test::check_in_every_float_environment([&] {
    Sampler sampler({.temperature = 0.7f, .top_k = 200, .top_p = 0.9f, .min_p = 0.001f, .repetition_penalty = 1.3f});
    const auto host = detail::FloatState::read();
    bool edited_outside = false;
    const LogitsEditor edit = [&](std::span<float>) { edited_outside = detail::FloatState::read() == host; };
    std::vector<std::pair<TokenId, double>> out;
    for (const auto& [id, probability] : sampler.distribution(logits, std::vector<TokenId>{1, 5}, edit)) {
      out.emplace_back(id, probability);
    }
    for (int i = 0; i < 20; ++i) out.emplace_back(sampler.sample(logits), 0.0);
    out.emplace_back(edited_outside ? 1 : 0, 0.0);
    return out;
  });
}

TEST_CASE(
    "options that are no numbers are refused in every floating-point environment, where comparing them traps, too") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  test::check_in_every_float_environment([&] {
    int refused = 0;
    for (const SamplerOptions& options :
         {SamplerOptions{.top_p = nan}, SamplerOptions{.min_p = nan}, SamplerOptions{.temperature = nan},
          SamplerOptions{.repetition_penalty = nan}}) {
      try {
        Sampler sampler(options);
      } catch (const Error&) {
        ++refused;
      }
    }
    return refused == 4;
  });
  CHECK_THROWS_AS(Sampler({.top_p = nan}), Error);
}
