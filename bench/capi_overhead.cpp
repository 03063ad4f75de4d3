// What the C ABI costs: a decode step of a model through mixtral.h against the same step through the C++ API, one
// thread, taken in turns; the median over rounds, and the ratio.  Arguments: a model (default: the tiny one), rounds.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mixtral.h"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/generate.hpp"
#include "mixtral/runtime/loaded_model.hpp"

namespace {

constexpr int kSteps = 50;

template <class F>
double seconds_of(F&& action) {
  const auto begin = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void ok(mixtral_status status) {
  if (status == MIXTRAL_OK) return;
  std::fprintf(stderr, "%s\n", mixtral_last_error());
  std::exit(1);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : MIXTRAL_TINY_DIR;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 101;
  const std::vector<std::int32_t> prompt = {1, 50, 60, 70};

  const mixtral::LoadedModel model(path, {.threads = 1});
  mixtral::Session session(model);
  mixtral::Sampler sampler({.temperature = 0});

  mixtral_params params;
  ok(mixtral_params_init(&params, sizeof params));
  params.n_threads = 1;
  mixtral_ctx* ctx = nullptr;
  ok(mixtral_ctx_create(path.data(), path.size(), &params, &ctx));
  mixtral_session* c_session = nullptr;
  ok(mixtral_session_create(ctx, nullptr, &c_session));
  mixtral_sampler_params greedy;
  ok(mixtral_sampler_params_init(&greedy, sizeof greedy));
  greedy.temperature = 0;
  ok(mixtral_session_set_sampler(c_session, &greedy));

  std::int64_t cpp_sum = 0, c_sum = 0;
  const auto cpp_round = [&] {
    session.truncate(0);
    session.feed(prompt);
    mixtral::step(session, sampler);
    return seconds_of([&] {
      for (int i = 0; i < kSteps; ++i) cpp_sum += mixtral::step(session, sampler);
    });
  };
  const auto c_round = [&] {
    std::int32_t token = 0;
    ok(mixtral_session_truncate(c_session, 0));
    ok(mixtral_session_feed(c_session, prompt.data(), prompt.size(), 0));
    ok(mixtral_session_step(c_session, &token));
    return seconds_of([&] {
      for (int i = 0; i < kSteps; ++i) {
        ok(mixtral_session_step(c_session, &token));
        c_sum += token;
      }
    });
  };

  std::vector<double> cpp, c, ratios;
  for (int i = 0; i < rounds; ++i) {  // who goes first changes with every round
    const bool c_first = i % 2 == 1;
    if (c_first) c.push_back(c_round());
    cpp.push_back(cpp_round());
    if (!c_first) c.push_back(c_round());
    ratios.push_back(c.back() / cpp.back());
  }
  mixtral_session_destroy(c_session);
  mixtral_ctx_destroy(ctx);
  const nlohmann::ordered_json result = {{"same_tokens", cpp_sum == c_sum},
                                         {"rounds", rounds},
                                         {"steps_per_round", kSteps},
                                         {"cpp_step_us", 1e6 * median(cpp) / kSteps},
                                         {"c_step_us", 1e6 * median(c) / kSteps},
                                         {"median_ratio", median(ratios)}};
  std::printf("%s\n", result.dump(2).c_str());
  return cpp_sum == c_sum ? 0 : 1;
}
