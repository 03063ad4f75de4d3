#include "mixtral/runtime/comparison.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <set>

#include "mixtral/runtime/evaluator.hpp"
#include "support/coarse_model.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/float_environments.hpp"
#include "support/models.hpp"

using namespace mixtral;
using test::error_of;
using test::names;

namespace {

const Model& fine() {
  static const test::RandomModel random(test::small_config());
  return random.model;
}

const Model& coarse() {
  static const test::CoarseModel copy(fine(), 3);
  return copy.model;
}

const KernelTable& table() {
  static const KernelTable best = make_table(best_isa());
  return best;
}

std::vector<TokenId> tokens(Index n, std::uint64_t seed = 5) {
  test::Random random(seed);
  return test::random_tokens(random, n, test::small_config());
}

// A comparison of two models on some kernels and one executor.
struct Machine {
  const Model& model;
  const KernelTable& kernels;
};
struct CompareOn {
  CompareOn(const Machine& reference, const Machine& model, Executor& executor)
      : first(reference.model, reference.kernels, executor), second(model.model, model.kernels, executor) {}
  LoadedModel first, second;
};
struct Compared : private CompareOn, Comparison {
  Compared(const Machine& reference, const Machine& model, Executor& executor, Index chunk = ComparisonOptions{}.chunk)
      : CompareOn(reference, model, executor), Comparison(first, second, {.chunk = chunk}) {}
};

// Each token is the target of those before it.
void run(Comparison& comparison, const std::vector<TokenId>& ids) { comparison.run(ids, std::span(ids).subspan(1)); }

SequenceTrace trace_of(const Model& model, const std::vector<TokenId>& ids) {
  SerialExecutor executor;
  SequenceTrace trace;
  Evaluator(LoadedModel(model, table(), executor)).run(ids, std::span(ids).subspan(1), &trace);
  return trace;
}

// By the definition, one softmax after the other.
double kl_oracle(std::span<const float> reference, std::span<const float> model) {
  const auto softmax = [](std::span<const float> logits) {
    std::vector<double> p;
    double sum = 0;
    for (const float x : logits) sum += p.emplace_back(std::exp(static_cast<double>(x)));
    for (double& x : p) x /= sum;
    return p;
  };
  const std::vector<double> p = softmax(reference), q = softmax(model);
  double kl = 0;
  for (std::size_t i = 0; i < p.size(); ++i) kl += p[i] * std::log(p[i] / q[i]);
  return kl;
}

std::span<const float> row(const std::vector<float>& values, std::size_t i, Index cols) {
  const auto n = static_cast<std::size_t>(cols);
  return std::span(values).subspan(i * n, n);
}

Model with(ModelConfig config) {
  static std::deque<test::RandomModel> kept;
  return kept.emplace_back(config).model;
}

// A change of the configuration must be refused with both numbers.
void check_refused(const ModelConfig& config, const char* name, Index got, Index want) {
  CAPTURE(name);
  SerialExecutor executor;
  const Model other = with(config);
  const Error error = error_of([&] { Compared({fine(), table()}, {other, table()}, executor); });
  CHECK(error.code() == ErrorCode::kInvalidArgument);
  CHECK(names(error, str("the model has ", name, " ", got, ", the reference ", want)));
}

}  // namespace

TEST_CASE("comparison: logits made by hand give the figures computed by hand") {
  const auto log_of = [](double p) { return static_cast<float>(std::log(p)); };
  const std::vector<float> reference = {log_of(0.5), log_of(0.25), log_of(0.25)}, even = {7, 7, 7};
  const ComparedPosition p = compare_logits(reference, even, 1);
  CHECK(p.kl == doctest::Approx(std::log(3.0) - 1.5 * std::log(2.0)).epsilon(1e-6));
  CHECK(p.reference_nll == doctest::Approx(std::log(4.0)).epsilon(1e-6));
  CHECK(p.model_nll == doctest::Approx(std::log(3.0)).epsilon(1e-12));
  CHECK(p.same_top1);  // of equal ones the first counts
  const ComparedPosition back = compare_logits(even, reference, 0);
  CHECK(back.kl == doctest::Approx(-std::log(3.0) - (std::log(0.5) + 2 * std::log(0.25)) / 3).epsilon(1e-6));
  CHECK_FALSE(compare_logits(std::vector<float>{1, 2}, std::vector<float>{2, 1}, 0).same_top1);
}

TEST_CASE("comparison: equal logits have a divergence of exactly 0, and shifted ones hardly more") {
  test::Random random(3);
  const auto logits = random.values<float>(1000, -30, 30);
  CHECK(compare_logits(logits, logits, 5).kl == 0);
  auto shifted = logits;
  for (float& x : shifted) x = static_cast<float>(static_cast<int>(x));
  auto higher = shifted;
  for (float& x : higher) x += 64;
  const ComparedPosition p = compare_logits(shifted, higher, 5);
  CHECK(p.kl >= 0);
  CHECK(p.kl < 1e-12);
  CHECK(p.same_top1);
  // Far apart: exp() of the difference would overflow.
  const ComparedPosition far = compare_logits(std::vector<float>{0, -3e38f}, std::vector<float>{-3e38f, 0}, 0);
  CHECK(far.kl == doctest::Approx(3e38));
  CHECK(far.reference_nll == 0);
}

TEST_CASE("comparison: choices are compared as sets and by their first, with the reference's margin") {
  const std::vector<float> logits = {0.5f, 2, -1, 1.5f};
  const std::vector<ExpertId> reference = {1, 3};
  const auto compare = [&](std::vector<ExpertId> model) { return compare_choices(logits, reference, model); };
  CHECK(compare({1, 3}) == ComparedChoice{1, true, true});
  CHECK(compare({3, 1}) == ComparedChoice{1, true, false});
  CHECK(compare({1, 0}) == ComparedChoice{1, false, true});
  CHECK(compare({0, 2}) == ComparedChoice{1, false, false});
  CHECK(compare_choices(logits, std::vector<ExpertId>{1}, std::vector<ExpertId>{3}).margin == 0.5f);
  // All are chosen: nothing is left to be near.
  const std::vector<ExpertId> all = {1, 3, 0, 2};
  CHECK(compare_choices(logits, all, std::vector<ExpertId>{0, 1, 2, 3}) == ComparedChoice{0, true, false});
}

TEST_CASE("comparison: percentiles are by nearest rank") {
  std::vector<double> values;
  for (int i = 0; i < 100; ++i) values.push_back((i * 37) % 100 + 1);  // 1 to 100, mixed
  const Distribution d = distribution_of(values);
  CHECK(d.n == 100);
  CHECK(d.mean == 50.5);
  CHECK(d.median == 50);
  CHECK(d.p90 == 90);
  CHECK(d.p99 == 99);
  CHECK(d.max == 100);
  CHECK(d.mean_error == doctest::Approx(std::sqrt(100 * 101 / 12.0 / 100)));  // variance n (n + 1) / 12
  CHECK(d.p99_low == 98);  // ranks 99 - 1.95 and, of 100.95, the largest
  CHECK(d.p99_high == 100);
  values.push_back(101);
  CHECK(distribution_of(values).p99 == 100);
  CHECK(distribution_of(values).median == 51);
  CHECK(distribution_of({3, 1}).median == 1);
  CHECK(distribution_of({3, 1}).p99 == 3);
  CHECK(distribution_of({7}).p90 == 7);
  CHECK(distribution_of({7}).mean_error == 0);
  CHECK(distribution_of({7}).p99_high == 7);
  CHECK(distribution_of({}).n == 0);
  CHECK(distribution_of({}).max == 0);
}

TEST_CASE("comparison: buckets of positions have one width and hold what falls into them") {
  std::vector<ComparedPosition> positions;
  for (const Index at : {0, 1, 2, 3, 9, 0, 1}) positions.push_back({.position = at, .kl = static_cast<double>(at)});
  const auto buckets = kl_by_position(positions, 4);  // of 10 positions: three to a bucket
  REQUIRE(buckets.size() == 4);
  const Index begin[] = {0, 3, 6, 9}, end[] = {3, 6, 9, 10}, n[] = {5, 1, 0, 1};
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(buckets[i].begin == begin[i]);
    CHECK(buckets[i].end == end[i]);
    CHECK(buckets[i].kl.n == n[i]);
  }
  CHECK(buckets[0].kl.mean == doctest::Approx(0.8));
  CHECK(buckets[3].kl.max == 9);
  CHECK(kl_by_position(positions, 100).size() == 10);
  CHECK(kl_by_position({}, 4).empty());
  CHECK(names(error_of([&] { kl_by_position(positions, 0); }), "0 buckets"));
}

TEST_CASE("comparison: a model compared with itself, or with the same weights in float32, differs in nothing") {
  const test::CoarseModel wide(fine(), 24);
  SerialExecutor executor;
  for (const Model* model : {&fine(), &wide.model}) {
    Compared comparison({fine(), table()}, {*model, table()}, executor);
    run(comparison, tokens(60));
    run(comparison, tokens(1));
    run(comparison, tokens(33, 6));
    const ComparisonResult r = comparison.result();
    CHECK(r.n_inputs == 94);
    CHECK(r.n_targets == 91);
    CHECK(r.kl.n == 91);
    CHECK(r.kl.max == 0);
    CHECK(r.n_same_top1 == 91);
    CHECK(r.model_cross_entropy == r.reference_cross_entropy);
    CHECK(r.gating.n == 188);
    CHECK(r.gating.same_set() == 1);
    CHECK(r.gating.same_first() == 1);
    CHECK(r.gating.margin_where_differing.n == 0);
    CHECK(r.gating.margin_where_same.n == 188);
    CHECK(r.layers.size() == 2);
  }
}

TEST_CASE("comparison: the figures of a coarse copy are those of a separate, plain computation") {
  const ModelConfig& c = fine().config;
  const auto ids = tokens(200);
  const SequenceTrace want = trace_of(fine(), ids), got = trace_of(coarse(), ids);
  SerialExecutor executor;
  Compared comparison({fine(), table()}, {coarse(), table()}, executor);
  run(comparison, ids);
  const ComparisonResult r = comparison.result();

  double kl = 0, nll[2] = {0, 0};
  Index top1 = 0;
  REQUIRE(comparison.positions().size() == 199);
  for (std::size_t t = 0; t < 199; ++t) {
    const auto reference = row(want.logits, t, c.vocab_size), model = row(got.logits, t, c.vocab_size);
    const ComparedPosition& p = comparison.positions()[t];
    CHECK(p.position == static_cast<Index>(t));
    CHECK(p.kl == doctest::Approx(kl_oracle(reference, model)).epsilon(1e-9));
    kl += kl_oracle(reference, model) / 199;
    nll[0] += static_cast<double>(want.token_nll[t]) / 199;
    nll[1] += static_cast<double>(got.token_nll[t]) / 199;
    const auto best = [](std::span<const float> x) { return std::max_element(x.begin(), x.end()) - x.begin(); };
    top1 += best(reference) == best(model) ? 1 : 0;
  }
  CHECK(r.kl.mean == doctest::Approx(kl).epsilon(1e-9));
  CHECK(r.kl.mean > 0);
  CHECK(r.n_same_top1 == top1);
  CHECK(top1 < 199);
  CHECK(r.reference_cross_entropy == doctest::Approx(nll[0]).epsilon(1e-6));
  CHECK(r.model_cross_entropy == doctest::Approx(nll[1]).epsilon(1e-6));

  for (std::size_t l = 0; l < want.layers.size(); ++l) {
    CAPTURE(l);
    Index same_set = 0, same_first = 0;
    for (std::size_t t = 0; t < ids.size(); ++t) {
      const ExpertId *a = want.layers[l].expert_ids.data() + 2 * t, *b = got.layers[l].expert_ids.data() + 2 * t;
      same_set += std::set{a[0], a[1]} == std::set{b[0], b[1]} ? 1 : 0;
      same_first += a[0] == b[0] ? 1 : 0;
      const auto logits = row(want.layers[l].router_logits, t, c.n_experts);
      std::vector<float> sorted(logits.begin(), logits.end());
      std::sort(sorted.rbegin(), sorted.rend());
      CHECK(comparison.choices(static_cast<Index>(l))[t].margin == sorted[1] - sorted[2]);
    }
    const GatingStability& g = r.layers[l];
    CHECK(g.n == 200);
    CHECK(g.n_same_set == same_set);
    CHECK(g.n_same_first == same_first);
    CHECK(g.margin_where_same.n == same_set);
    CHECK(g.margin_where_differing.n == 200 - same_set);
  }
  CHECK(r.gating.n_same_set == r.layers[0].n_same_set + r.layers[1].n_same_set);
  CHECK(r.gating.same_set() < 1);
  CHECK(r.gating.margin_where_differing.median < r.gating.margin_where_same.median);
}

TEST_CASE("comparison: executors, chunks and instruction sets change no figure") {
  const auto ids = tokens(100);
  SerialExecutor serial;
  Compared want({fine(), table()}, {coarse(), table()}, serial);
  run(want, ids);
  const auto check_same = [&](const Comparison& got) {
    CHECK(std::equal(got.positions().begin(), got.positions().end(), want.positions().begin(), want.positions().end()));
    for (const Index l : {0, 1}) {
      CHECK(std::equal(got.choices(l).begin(), got.choices(l).end(), want.choices(l).begin(), want.choices(l).end()));
    }
    CHECK(got.result().kl.mean == want.result().kl.mean);
  };
  test::for_each_executor([&](Executor& executor) {
    for (const Index chunk : {1, 7, 32, 100, 256}) {
      CAPTURE(chunk);
      Compared got({fine(), table()}, {coarse(), table()}, executor, chunk);
      run(got, ids);
      check_same(got);
    }
  });
  test::for_each_table([&](const KernelTable& other) {
    Compared got({fine(), other}, {coarse(), table()}, serial);
    run(got, ids);
    check_same(got);
  });
}

TEST_CASE("comparison: models of different shapes are refused with both numbers") {
  ModelConfig c = test::small_config();
  c.vocab_size = 51;
  check_refused(c, "vocab_size", 51, 50);
  c = test::small_config();
  c.n_layers = 3;
  check_refused(c, "n_layers", 3, 2);
  c = test::small_config();
  c.n_experts = 4;
  check_refused(c, "n_experts", 4, 8);
  c = test::small_config();
  c.n_experts_per_tok = 3;
  check_refused(c, "n_experts_per_tok", 3, 2);
  SerialExecutor executor;
  CHECK(names(error_of([&] { Compared({fine(), table()}, {fine(), table()}, executor, 0); }), "chunk 0"));
  // Widths and heads may differ: a distilled model is compared, too.
  c = test::small_config();
  c.dim = 16;
  c.n_heads = 2;
  c.max_positions = 40;
  const Model narrow = with(c);
  Compared comparison({fine(), table()}, {narrow, table()}, executor);
  CHECK(comparison.max_positions() == 40);
  run(comparison, tokens(40));
  CHECK(comparison.result().n_targets == 39);
}

TEST_CASE("comparison: what cannot be compared is refused, and nothing of it is counted") {
  SerialExecutor executor;
  Compared comparison({fine(), table()}, {coarse(), table()}, executor, 32);
  run(comparison, tokens(10));
  const auto refused = [&](const std::vector<TokenId>& inputs, const std::vector<TokenId>& targets, ErrorCode code,
                           const char* part) {
    const Error error = error_of([&] { comparison.run(inputs, targets); });
    CHECK(error.code() == code);
    CHECK(names(error, part));
  };
  refused(tokens(257), {}, ErrorCode::kContextFull, "257");
  refused({1, 2}, {1, 2, 3}, ErrorCode::kInvalidArgument, "3 targets for 2 inputs");
  refused({1, 2}, {50}, ErrorCode::kInvalidArgument, "target 50");
  refused({1, 50}, {1}, ErrorCode::kInvalidArgument, "token 50");
  const auto ids = tokens(100);
  CHECK_THROWS_AS(comparison.run(ids, ids,
                                 [](Index done) {
                                   if (done >= 64) throw Error(ErrorCode::kCancelled, "enough");
                                 }),
                  Error);
  const ComparisonResult r = comparison.result();
  CHECK(r.n_inputs == 10);
  CHECK(r.n_targets == 9);
  CHECK(comparison.choices(1).size() == 10);
}

TEST_CASE("comparison: logits that are not finite are an error which says whose and where") {
  SerialExecutor executor;
  Matrix<float> head(Shape<2>{{50, 32}});
  std::fill(head.span().begin(), head.span().end(), std::numeric_limits<float>::quiet_NaN());
  Model broken = fine();
  broken.weights.head = head.view();
  const auto ids = tokens(5);
  Compared one({fine(), table()}, {broken, table()}, executor), other({broken, table()}, {fine(), table()}, executor);
  CHECK(names(error_of([&] { run(one, ids); }), "the model's logits at position 0 are not finite"));
  CHECK(names(error_of([&] { run(other, ids); }), "the reference's logits at position 0 are not finite"));
  CHECK(one.result().n_inputs == 0);
  CHECK(one.result().kl.n == 0);
}

TEST_CASE("a comparison does not depend on the host's floating-point environment") {
  const auto ids = tokens(40);
  test::check_in_every_float_environment([&] {
    OpenMpExecutor executor(2);
    Compared comparison({fine(), table()}, {coarse(), table()}, executor);
    run(comparison, ids);
    const ComparisonResult result = comparison.result();
    const Distribution& margin = result.gating.margin_where_same;
    return std::vector<double>{result.reference_cross_entropy,
                               result.difference_error,
                               result.kl.mean,
                               result.kl.p99,
                               result.kl.mean_error,
                               margin.mean,
                               margin.max};
  });
}
