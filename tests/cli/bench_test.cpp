#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "mixtral/ops/isa.hpp"
#include "support/golden.hpp"
#include "support/program.hpp"

using namespace mixtral;
using nlohmann::json;
using test::Answer;
using test::contains;
using test::quoted;
using test::run_program;

namespace {

// nlohmann writes what is no number as null: only these may be.
bool positive(const json& value) { return value.is_number() && value.get<double>() > 0; }

// A median with its range; null if all runs were dropped.
void check_spread(const json& values, int runs) {
  CHECK(values.is_null() == (runs == 0));
  if (runs == 0) return;
  CHECK(positive(values.at("min")));
  CHECK(values.at("median") >= values.at("min"));
  CHECK(values.at("max") >= values.at("median"));
}

void check_repetition(const json& r) {
  for (const char* key : {"seconds", "steps", "tokens", "weight_bytes", "operations", "tokens_per_second", "GB/s",
                          "TOPS", "probe_before", "probe_after", "percent_of_ceiling"}) {
    CAPTURE(key);
    CHECK(positive(r.at(key)));
  }
  CHECK(r.at("tokens_per_second").get<double>() ==
        doctest::Approx(r.at("tokens").get<double>() / r.at("seconds").get<double>()));
}

void check_phase(const json& phase, int repeat) {
  const int runs = phase.at("runs").get<int>();
  CHECK(runs + phase.at("dropped").get<int>() == repeat);
  for (const char* key : {"tokens_per_second", "GB/s", "TOPS", "ceiling", "percent_of_ceiling"}) {
    CAPTURE(key);
    check_spread(phase.at(key), runs);
  }
  CHECK(positive(phase.at("weight_bytes_per_token")));
  CHECK(positive(phase.at("operations_per_token")));
  CHECK(phase.at("repetitions").size() == static_cast<std::size_t>(repeat));
  for (const json& r : phase.at("repetitions")) check_repetition(r);
  const json& experts = phase.at("distinct_experts");
  CHECK(experts.at("of_layer").size() == 5);
  for (const json& mean : experts.at("of_layer")) {
    CHECK(mean >= 2);
    CHECK(mean <= 8);
  }
}

json bench(const std::string& arguments) {
  const Answer answer = run_program("bench --json " + arguments);
  CHECK(answer.status == 0);
  CHECK(answer.err.empty());
  return json::parse(answer.out);
}

}  // namespace

TEST_CASE("bench --json has all figures of a prompt and of a decode") {
  if (!supported(Isa::kAvx2)) return;  // no ceiling
  const json result = bench("-p 8 -n 2 --repeat 1 --threads 2");
  CHECK(result.at("isa") == name_of(best_isa()));
  CHECK(result.at("threads") == 2);
  CHECK(result.at("layers") == 5);
  CHECK_FALSE(result.at("machine").get<std::string>().empty());
  for (const char* group : {"embedding", "attention", "gate", "experts", "norms", "head"}) {
    CAPTURE(group);
    CHECK(positive(result.at("weights").at(group).at("parameters")));
    CHECK(positive(result.at("weights").at(group).at("bytes")));
  }
  for (const char* key : {"weights_bytes", "kv_bytes", "scratch_bytes"}) CHECK(positive(result.at("memory").at(key)));
  check_phase(result.at("prefill"), 1);
  CHECK(result.at("prefill").at("repetitions")[0].at("tokens") == 8);
  CHECK(result.at("decode").size() == 1);
  check_phase(result.at("decode")[0], 1);
  CHECK(result.at("decode")[0].at("distinct_experts").at("mean") == 2);
}

TEST_CASE("bench counts the weights that a step touches, its operations and the cache that it reads") {
  const json a = bench("-p 0 -n 2 --batch 1,3 --depth 40 --repeat 1 --threads 1");
  CHECK(a.at("prefill").is_null());
  REQUIRE(a.at("decode").size() == 2);
  const json weights = a.at("weights");
  const auto of = [&](const char* group, const char* key) { return weights.at(group).at(key).get<double>(); };
  const double layers = 5, experts = 8, chosen = 2;
  for (std::size_t i = 0; i < 2; ++i) {
    const json& phase = a.at("decode")[i];
    const int batch = i == 0 ? 1 : 3;
    CHECK(phase.at("batch") == batch);
    CHECK(phase.at("depth") == 40);
    const double distinct = phase.at("distinct_experts").at("mean").get<double>();
    CHECK(distinct >= chosen);
    const double dense = of("attention", "bytes") + of("gate", "bytes") + of("norms", "bytes") + of("head", "bytes");
    CHECK(phase.at("weight_bytes_per_step").get<double>() ==
          doctest::Approx(dense + of("experts", "bytes") * distinct / experts));
    CHECK(phase.at("operations_per_token").get<double>() ==
          doctest::Approx(2 * (of("attention", "parameters") + of("gate", "parameters") + of("head", "parameters") +
                               of("experts", "parameters") * chosen / experts)));
    // Two steps, at 40 and 41 positions.
    const json config = json::parse(run_program("inspect --json").out).at("config");
    const double row = 2 * 2 * layers * config.at("n_kv_heads").get<double>() * config.at("head_dim").get<double>();
    CHECK(phase.at("kv_bytes_per_step").get<double>() == doctest::Approx(40.5 * row * batch));
  }
}

TEST_CASE("bench reads a prompt while other sequences decode in its steps") {
  const json a = bench("-p 500 -n 0 --ragged 3 --depth 40 --repeat 1 --threads 1");
  const json &alone = a.at("prefill").at("repetitions")[0], &beside = a.at("ragged").at("repetitions")[0];
  CHECK(a.at("ragged").at("batch") == 3);
  CHECK(beside.at("steps") == 1);
  CHECK(beside.at("tokens") == 500 + 3);
  const double row = alone.at("kv_bytes").get<double>() / (500.0 * 499 / 2);
  CHECK(beside.at("kv_bytes").get<double>() == doctest::Approx(alone.at("kv_bytes").get<double>() + 3 * 40 * row));
  // The others' logits, too.
  CHECK(beside.at("operations").get<double>() / 503 > alone.at("operations").get<double>() / 500);
  CHECK(run_program("bench -p 0 --ragged 2 --repeat 1").status != 0);
}

TEST_CASE("bench reads a prompt in steps of so many tokens") {
  const json a = bench("-p 300 -n 0 --chunk 128 --repeat 1 --threads 1");
  CHECK(a.at("options").at("chunk") == 128);
  CHECK(a.at("prefill").at("repetitions")[0].at("steps") == 3);
}

TEST_CASE("Without --json bench prints a line for each phase") {
  const Answer answer = run_program("bench -p 8 -n 2 --batch 2 --repeat 1 --isa reference --threads 1");
  CHECK(answer.status == 0);
  CHECK(contains(answer.out, "prompt of 8"));
  CHECK(contains(answer.out, "decode 2 at 0"));
  CHECK(contains(answer.out, "weights "));
}

TEST_CASE("bench refuses what it cannot measure") {
  const struct {
    std::string arguments;
    int status;
    std::string message;
  } cases[] = {
      {"--repeat 0", 2, "--repeat"},
      {"-n -1", 2, "--decode"},
      {"--batch 0", 2, "--batch"},
      {"--batch 1,x", 2, "--batch"},
      {"--layers 2", 2, "--layers"},
      {"--weights p4", 2, "--weights"},
      {"--synthetic llama", 2, "--synthetic"},
      {"--synthetic mixtral-8x7b --weights p5", 2, "--weights"},
      {"--synthetic mixtral-8x7b --model x", 2, "--model"},
      {"-p 0 -n 1 --depth 100000", 1, "positions"},
      {"-p 100000 -n 0", 1, "positions"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.arguments);
    const Answer answer = run_program("bench " + c.arguments);
    CHECK(answer.status == c.status);
    CHECK_MESSAGE(contains(answer.err, c.message), answer.err);
    CHECK(answer.out.empty());
  }
}
