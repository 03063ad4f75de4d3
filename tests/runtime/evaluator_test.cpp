// The golden model cases, the malformed directory's base logits and the tiny model's reference: from files on
// disk to logits, on every table of this machine, with one and two threads.
#include "mixtral/runtime/evaluator.hpp"

#include <doctest/doctest.h>

#include "mixtral/core/openmp_executor.hpp"
#include "mixtral/io/huggingface.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/generate.hpp"
#include "support/error_of.hpp"
#include "support/float_environments.hpp"
#include "support/golden.hpp"
#include "support/models.hpp"

using namespace mixtral;

namespace {

Model load(const std::filesystem::path& dir) { return load_huggingface(dir).model; }

// Runs body(table, executor) for every table that runs here, with 1 and 2 threads.
template <class Body>
void on_every_machine(Body body) {
  for (const Isa isa : all_isas()) {
    CAPTURE(name_of(isa));
    if (!supported(isa)) {
      MESSAGE("skipped: this CPU has no " << name_of(isa));
      continue;
    }
    const KernelTable table = make_table(isa);
    for (const int threads : {1, 2}) {
      CAPTURE(threads);
      OpenMpExecutor executor(threads);
      body(table, executor);
    }
  }
}

SequenceTrace trace_of(const Model& model, const KernelTable& table, Executor& executor, std::span<const TokenId> ids) {
  SequenceTrace trace;
  Evaluator(LoadedModel(model, table, executor), DType::kF32).run(ids, ids.subspan(1), &trace);
  return trace;
}

void check_layers(const SequenceTrace& trace, const SafetensorsFile& want, const nlohmann::json& manifest) {
  for (std::size_t l = 0; l < trace.layers.size(); ++l) {
    const SequenceTrace::Layer& got = trace.layers[l];
    const std::string layer = str("layer.", l, ".");
    CAPTURE(layer);
    const auto close = [&](std::span<const float> values, const char* name, const char* budget) {
      return test::excess(values, test::elements<float>(want, layer + name), test::tolerance(manifest, budget));
    };
    CHECK(close(got.output, "output", "layer_output") == 0);
    CHECK(close(got.router_logits, "router_logits", "router_logits") == 0);
    CHECK(close(got.expert_weights, "expert_weights", "expert_weights") == 0);
    CHECK(got.expert_ids == test::elements<std::int32_t>(want, layer + "expert_ids"));
  }
}

std::vector<TokenId> greedy(const Model& model, const KernelTable& table, Executor& executor,
                            std::span<const TokenId> prompt, Index n) {
  const LoadedModel loaded(model, table, executor);
  Session session(loaded, {.kv_dtype = DType::kF32});
  session.feed(prompt);
  GenerateOptions options;
  options.max_tokens = n;
  options.sampler.temperature = 0;
  return generate(session, nullptr, options).ids;
}

}  // namespace

TEST_CASE("evaluator: every golden model case is met on every table") {
  const auto manifest = test::read_json(test::golden_dir() / "manifest.json");
  int cases = 0;
  for (const auto& entry : manifest.at("cases")) {
    if (entry.at("kind") != "model") continue;
    const auto name = entry.at("name").get<std::string>();
    CAPTURE(name);
    const Model model = load(test::golden_dir() / entry.at("model").get<std::string>());
    const SafetensorsFile want(test::golden_dir() / entry.at("file").get<std::string>());
    const auto ids = test::elements<std::int32_t>(want, "ids");
    on_every_machine([&](const KernelTable& table, Executor& executor) {
      const LoadedModel evaluator_on(model, table, executor);
      Evaluator evaluator(evaluator_on, DType::kF32);
      SequenceTrace trace;
      evaluator.run(ids, std::span(ids).subspan(1), &trace);
      const auto close = [&](std::span<const float> got, const char* tensor, const char* budget) {
        return test::excess(got, test::elements<float>(want, tensor), test::tolerance(manifest, budget));
      };
      CHECK(trace.embed == test::elements<float>(want, "embed"));
      check_layers(trace, want, manifest);
      CHECK(close(trace.final_norm, "final_norm", "layer_output") == 0);
      CHECK(close(trace.logits, "logits", "logits") == 0);
      CHECK(evaluator.load_balancing_loss() ==
            doctest::Approx(entry.at("load_balancing_loss").get<double>()).epsilon(1e-5));
      CHECK(evaluator.cross_entropy().has_value() == (ids.size() > 1));
      if (ids.size() > 1) {
        CHECK(close(trace.token_nll, "token_nll", "token_nll") == 0);
        CHECK(std::abs(*evaluator.cross_entropy() - entry.at("cross_entropy").get<double>()) <= 5e-5);
      }
      const auto want_greedy = test::elements<std::int32_t>(want, "greedy_ids");
      CHECK(greedy(model, table, executor, ids, static_cast<Index>(want_greedy.size())) == want_greedy);
    });
    ++cases;
  }
  CHECK(cases == 8);
}

TEST_CASE("evaluator: greedy step logits agree with the golden ones") {
  const auto manifest = test::read_json(test::golden_dir() / "manifest.json");
  const Model model = load(test::golden_dir() / "models/A");
  const SafetensorsFile want(test::golden_dir() / "cases/A_T7.safetensors");
  const auto ids = test::elements<std::int32_t>(want, "ids");
  const auto drawn = test::elements<std::int32_t>(want, "greedy_ids");
  const auto logits = test::elements<float>(want, "greedy_step_logits");
  const auto vocab_size = static_cast<std::size_t>(model.config.vocab_size);
  on_every_machine([&](const KernelTable& table, Executor& executor) {
    const LoadedModel loaded(model, table, executor);
    Session session(loaded, {.kv_dtype = DType::kF32});
    session.feed(ids);
    for (std::size_t j = 0; j < drawn.size(); ++j) {
      session.eval();
      CHECK(test::excess(session.logits(), std::span(logits).subspan(j * vocab_size, vocab_size),
                         test::tolerance(manifest, "logits")) == 0);
      session.feed(drawn[j]);
    }
  });
}

TEST_CASE("evaluator: legal but unusual checkpoints give the base logits") {
  const auto manifest = test::read_json(test::golden_dir() / "malformed_hf/manifest.json");
  const SafetensorsFile want(test::golden_dir() / "malformed_hf/_base.logits.safetensors");
  const auto logits = test::elements<float>(want, "logits");
  const std::vector<TokenId> ids = {1, 4, 7, 10, 15};
  int loaded = 0;
  const auto check = [&](const std::string& directory) {
    CAPTURE(directory);
    const Model model = load(test::golden_dir() / "malformed_hf" / directory);
    on_every_machine([&](const KernelTable& table, Executor& executor) {
      CHECK(test::excess(trace_of(model, table, executor, ids).logits, logits, test::tolerance(manifest, "logits")) ==
            0);
    });
    ++loaded;
  };
  check("_base");
  for (const auto& entry : manifest.at("cases")) {
    if (entry.at("expect") == "load") check(entry.at("directory").get<std::string>());
  }
  CHECK(loaded == 8);
}

TEST_CASE("evaluator: the tiny model's reference logits, routing and greedy continuations are met") {
  const auto manifest = test::read_json(test::golden_dir() / "manifest.json");
  const auto reference = test::read_json(test::golden_dir() / "tiny/reference.json");
  const SafetensorsFile want(test::golden_dir() / "tiny/reference.safetensors");
  const Model model = load(test::tiny_dir());
  const auto per_layer = static_cast<std::size_t>(model.config.n_experts_per_tok);
  for (const auto& [domain, prompt] : reference.at("prompts").items()) {
    CAPTURE(domain);
    const auto ids = test::elements<std::int32_t>(want, domain + ".ids");
    const auto experts = test::elements<std::int32_t>(want, domain + ".experts");
    const auto weights = test::elements<float>(want, domain + ".weights");
    on_every_machine([&](const KernelTable& table, Executor& executor) {
      const SequenceTrace trace = trace_of(model, table, executor, ids);
      CHECK(test::excess(trace.logits, test::elements<float>(want, domain + ".logits"),
                         test::tolerance(manifest, "logits")) == 0);
      std::vector<ExpertId> got_experts;
      std::vector<float> got_weights;
      for (const SequenceTrace::Layer& layer : trace.layers) {
        REQUIRE(layer.expert_ids.size() == ids.size() * per_layer);
        got_experts.insert(got_experts.end(), layer.expert_ids.begin(), layer.expert_ids.end());
        got_weights.insert(got_weights.end(), layer.expert_weights.begin(), layer.expert_weights.end());
      }
      CHECK(got_experts == experts);
      CHECK(test::excess(got_weights, weights, test::tolerance(manifest, "expert_weights")) == 0);
      CHECK(greedy(model, table, executor, ids, 32) == test::elements<std::int32_t>(want, domain + ".greedy"));
    });
  }
}

TEST_CASE("evaluator: the tiny model's cross-entropy and expert use on held-out texts are the reference's") {
  const auto reference = test::read_json(test::golden_dir() / "tiny/reference.json");
  const Model model = load(test::tiny_dir());
  const Tokenizer tokenizer = Tokenizer::load(test::tiny_dir());
  const KernelTable table = make_table(best_isa());
  OpenMpExecutor executor(2);
  for (const auto& [domain, entry] : reference.at("heldout").items()) {
    CAPTURE(domain);
    const std::string text = read_file(test::golden_dir() / "tiny" / entry.at("file").get<std::string>(), 1 << 20);
    const std::vector<TokenId> ids = tokenizer.encode(text);
    CHECK(ids.size() == entry.at("tokens").get<std::size_t>());
    const LoadedModel evaluator_on(model, table, executor);
    Evaluator evaluator(evaluator_on, DType::kF32);
    for (std::size_t begin = 0; begin < ids.size(); begin += 512) {  // the reference's windows
      const auto targets = std::span<const TokenId>(ids).subspan(begin, std::min<std::size_t>(512, ids.size() - begin));
      std::vector<TokenId> inputs = {model.config.bos_id};
      inputs.insert(inputs.end(), targets.begin(), targets.end() - 1);
      evaluator.run(inputs, targets);
    }
    CHECK(*evaluator.cross_entropy() == doctest::Approx(entry.at("cross_entropy").get<double>()).epsilon(1e-5));
    const auto& used = entry.at("experts_used");
    for (Index l = 0; l < model.config.n_layers; ++l) {
      for (Index e = 0; e < model.config.n_experts; ++e) {
        CHECK(evaluator.routing().count(l, e) ==
              used.at(static_cast<std::size_t>(l)).at(static_cast<std::size_t>(e)).get<Index>());
      }
    }
  }
}

TEST_CASE("cross-entropy and balance do not depend on the host's floating-point environment") {
  const test::RandomModel m(test::small_config());
  test::Random random(3);
  const std::vector<TokenId> ids = test::random_tokens(random, 30, m.model.config);
  const KernelTable table = make_table(best_isa());
  OpenMpExecutor executor(2);
  test::check_in_every_float_environment([&] {
    const LoadedModel evaluator_on(m.model, table, executor);
    Evaluator evaluator(evaluator_on);
    evaluator.run(ids, std::span(ids).subspan(1));
    return std::pair(*evaluator.cross_entropy(), evaluator.load_balancing_loss());
  });
}

TEST_CASE("evaluator: a model without its head is refused by name, and nothing is counted") {
  const LoadedModel headless(test::tiny_dir(), {.threads = 1, .head = Head::kNone});
  Evaluator evaluator(headless);
  const TokenId ids[] = {1, 5, 9};
  const Error error = test::error_of([&] { evaluator.run(ids, std::span(ids).subspan(1)); });
  CHECK(error.code() == ErrorCode::kNotFound);
  CHECK(test::names(error, "opened without its head"));
  CHECK(evaluator.n_targets() == 0);
}
