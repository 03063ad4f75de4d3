#include "mixtral/runtime/generate.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "mixtral/core/openmp_executor.hpp"
#include "mixtral/io/huggingface.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/routing_stats.hpp"
#include "support/error_of.hpp"
#include "support/golden.hpp"

using namespace mixtral;

namespace {

struct Tiny {
  Model model = load_huggingface(test::tiny_dir()).model;
  Tokenizer tokenizer = Tokenizer::load(test::tiny_dir());
  KernelTable table = make_table(best_isa());
  OpenMpExecutor executor{2};
  std::vector<TokenId> ids(std::string_view text) const {
    std::vector<TokenId> out = tokenizer.encode(text);
    out.insert(out.begin(), model.config.bos_id);
    return out;
  }
  GenerateResult run(GenerateOptions options, SessionOptions session_options = {}) {
    const LoadedModel loaded(model, table, executor);
    Session session(loaded, session_options);
    session.feed(ids("RETURN VALUE\n       On success,"));
    return generate(session, &tokenizer, options);
  }
};

Tiny& tiny() {
  static Tiny instance;
  return instance;
}

GenerateOptions greedy(Index n) {
  GenerateOptions options;
  options.max_tokens = n;
  options.sampler.temperature = 0;
  return options;
}

}  // namespace

TEST_CASE("generate: streamed text, result text and ids tell the same") {
  GenerateOptions options = greedy(40);
  std::string streamed;
  std::vector<TokenId> seen;
  options.on_token = [&](TokenId id, std::string_view text) {
    if (id >= 0) seen.push_back(id);
    streamed += text;
    return true;
  };
  const GenerateResult result = tiny().run(options);
  CHECK(result.reason == StopReason::kMaxTokens);
  CHECK(result.ids.size() == 40);
  CHECK(seen == result.ids);
  CHECK(streamed == result.text);
  std::vector<TokenId> all = tiny().ids("RETURN VALUE\n       On success,");
  const std::string prompt = tiny().tokenizer.decode(all);
  all.insert(all.end(), result.ids.begin(), result.ids.end());
  CHECK(prompt + result.text == tiny().tokenizer.decode(all));
}

TEST_CASE("generate: a stop string ends the text before it, wherever tokens begin") {
  const std::string all = tiny().run(greedy(40)).text;
  REQUIRE(all.size() > 20);
  const std::string stop = all.substr(9, 6);
  GenerateOptions options = greedy(40);
  options.stop_strings = {"never comes", stop};
  const GenerateResult result = tiny().run(options);
  CHECK(result.reason == StopReason::kStopString);
  CHECK(result.text == all.substr(0, all.find(stop)));
  CHECK(result.ids.size() < 40);
}

TEST_CASE("generate: a stop id is the last id, and its text is not delivered whatever its piece is") {
  GenerateOptions options = greedy(40);
  const auto ids = tiny().run(options).ids;
  options.stop_ids = {ids[5]};
  std::string streamed;
  options.on_token = [&](TokenId, std::string_view text) {
    streamed += text;
    return true;
  };
  const GenerateResult result = tiny().run(options);
  CHECK(result.reason == StopReason::kStopId);
  CHECK(result.ids.back() == ids[5]);
  CHECK(result.ids.size() <= 6);
  CHECK(!tiny().tokenizer.token_bytes(ids[5]).empty());
  GenerateOptions shorter = greedy(static_cast<Index>(result.ids.size()) - 1);
  CHECK(result.text == tiny().run(shorter).text);
  CHECK(streamed == result.text);
}

TEST_CASE("generate: edited logits decide, and a ban is a ban") {
  GenerateOptions options = greedy(10);
  const TokenId banned = tiny().run(options).ids[0];
  options.edit_logits = [&](std::span<float> logits) {
    logits[static_cast<std::size_t>(banned)] = -std::numeric_limits<float>::infinity();
  };
  for (const TokenId id : tiny().run(options).ids) CHECK(id != banned);
}

TEST_CASE("generate: callbacks may end it") {
  GenerateOptions options = greedy(40);
  int calls = 0;
  options.on_token = [&](TokenId, std::string_view) { return ++calls < 3; };
  options.stop_strings = {"never comes"};  // holds text back, which a receiver that said stop must not get
  const GenerateResult result = tiny().run(options);
  CHECK(result.reason == StopReason::kCallback);
  CHECK(result.ids.size() == 3);
  CHECK(calls == 3);
}

TEST_CASE("generate: a full context ends it") {
  const auto prompt = static_cast<Index>(tiny().ids("RETURN VALUE\n       On success,").size());
  const GenerateResult result = tiny().run(greedy(40), {.max_positions = prompt + 4});
  CHECK(result.reason == StopReason::kContextFull);
  CHECK(result.ids.size() == 5);  // the last one is drawn from the last position and has no place itself
  const auto longer = tiny().run(greedy(5)).ids;
  CHECK(result.ids == longer);
}

TEST_CASE("generate: the same seed draws the same text") {
  GenerateOptions options;
  options.max_tokens = 30;
  options.sampler = {.temperature = 0.9f, .top_p = 0.95f, .seed = 11};
  const auto first = tiny().run(options).ids;
  CHECK(tiny().run(options).ids == first);
  options.sampler.seed = 12;
  CHECK(tiny().run(options).ids != first);
}

TEST_CASE("generate: routing counts add up to tokens times experts per token") {
  Tiny& t = tiny();
  const LoadedModel loaded(t.model, t.table, t.executor);
  Session session(loaded);
  session.feed(t.ids("OPIS"));
  const auto prompt = static_cast<Index>(session.tokens().size());
  RoutingStats stats(t.model.config);
  generate(session, &t.tokenizer, greedy(8), &stats);
  // The last drawn token is not computed.
  for (Index l = 0; l < stats.n_layers(); ++l) CHECK(stats.total(l) == 2 * (prompt + 7));
  stats.reset();
  CHECK(stats.total(0) == 0);
}

TEST_CASE("generate: what needs a tokenizer or a prompt says so") {
  Tiny& t = tiny();
  const LoadedModel empty_model(t.model, t.table, t.executor);
  Session empty(empty_model);
  CHECK_THROWS_WITH_AS(generate(empty, nullptr, greedy(1)), "generate: the session is empty, feed at least one token",
                       Error);
  empty.feed(1);
  GenerateOptions options = greedy(1);
  options.stop_strings = {"x"};
  CHECK_THROWS_WITH_AS(generate(empty, nullptr, options), "generate: stop strings need a tokenizer", Error);
  CHECK(generate(empty, nullptr, greedy(3)).ids.size() == 3);
}

TEST_CASE("step: one token after the other, the same as generate") {
  const auto want = tiny().run(greedy(6)).ids;
  const LoadedModel loaded(tiny().model, tiny().table, tiny().executor);
  Session session(loaded);
  Sampler sampler({.temperature = 0});
  CHECK_THROWS_WITH_AS(step(session, sampler), "sample: there are no logits, eval a token first", Error);
  session.feed(tiny().ids("RETURN VALUE\n       On success,"));
  for (const TokenId id : want) CHECK(step(session, sampler) == id);
  CHECK_THROWS_WITH_AS(draw(session, sampler), "sample: 1 tokens are queued, eval them first", Error);
}

TEST_CASE("generate: a sampler of the caller's goes on with its random numbers") {
  const auto draw_six = [](Index first) {
    const LoadedModel loaded(tiny().model, tiny().table, tiny().executor);
    Session session(loaded);
    session.feed(tiny().ids("RETURN VALUE\n       On success,"));
    Sampler sampler({.seed = 5});
    GenerateOptions options;
    options.max_tokens = first;
    auto ids = generate(session, sampler, &tiny().tokenizer, options).ids;
    options.max_tokens = 6 - first;
    for (const TokenId id : generate(session, sampler, &tiny().tokenizer, options).ids) ids.push_back(id);
    return ids;
  };
  CHECK(draw_six(6) == draw_six(2));
}

TEST_CASE("generate: a model without its head is refused, and the session keeps its tokens") {
  const LoadedModel headless(test::tiny_dir(), {.threads = 1, .head = Head::kNone});
  Session session(headless);
  session.feed(headless.prompt("RETURN VALUE"));
  const std::vector<TokenId> before(session.tokens().begin(), session.tokens().end());
  const auto same = [&] {
    return std::equal(before.begin(), before.end(), session.tokens().begin(), session.tokens().end());
  };
  Sampler sampler{SamplerOptions{}};
  CHECK(test::names(test::error_of([&] { step(session, sampler); }), "opened without its head"));
  CHECK(same());
  GenerateOptions options;
  bool heard = false;
  options.on_token = [&](TokenId, std::string_view) { return heard = true; };
  const Error error = test::error_of([&] { generate(session, &headless.require_tokenizer(), options); });
  CHECK(error.code() == ErrorCode::kNotFound);
  CHECK(same());
  CHECK_FALSE(heard);
}
