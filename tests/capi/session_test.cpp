// mixtral.h: sessions.
#include <atomic>
#include <cmath>
#include <limits>
#include <thread>

#include "mixtral/core/openmp_executor.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/generate.hpp"
#include "mixtral/runtime/loaded_model.hpp"
#include "support/capi.hpp"

using namespace mixtral;
using namespace mixtral::test;

namespace {

std::vector<std::int32_t> steps(mixtral_session* session, int n) {
  std::vector<std::int32_t> out(static_cast<std::size_t>(n));
  for (std::int32_t& token : out) ok(mixtral_session_step(session, &token));
  return out;
}

struct Heard {
  std::vector<std::int32_t> tokens;
  std::string text;
  mixtral_session* session = nullptr;
  int stop_after = 1 << 30;
};

std::int32_t hear(void* user, std::int32_t token, const char* text, std::size_t size) {
  auto& heard = *static_cast<Heard*>(user);
  if (token >= 0) heard.tokens.push_back(token);
  heard.text.append(text, size);
  return static_cast<int>(heard.tokens.size()) < heard.stop_after ? 0 : 1;
}

mixtral_generate_params generation(Heard& heard, std::int64_t n) {
  mixtral_generate_params p;
  ok(mixtral_generate_params_init(&p, sizeof p));
  p.max_tokens = n;
  p.on_token = hear;
  p.user = &heard;
  return p;
}

std::uint64_t total_choices() {
  std::uint64_t sum = 0;
  for (const std::uint64_t n : read_all<std::uint64_t>([](std::uint64_t*out, std::size_t capacity, std::size_t*n) {
         return mixtral_ctx_routing_counts(tiny_ctx(), out, capacity, n);
       })) {
    sum += n;
  }
  return sum;
}

std::vector<std::int32_t> route_of(mixtral_session* session, std::size_t position) {
  return read_all<std::int32_t>([&](std::int32_t* out, std::size_t capacity, std::size_t* n) {
    return mixtral_session_routes(session, position, out, nullptr, capacity, n);
  });
}

}  // namespace

TEST_CASE("steps and generate draw what the C++ library draws") {
  const LoadedModel model(tiny_dir());
  const KernelTable table = make_table(best_isa());
  SerialExecutor executor;
  const LoadedModel want_model(model.model(), table, executor);
  Session want(want_model);
  want.feed(prompt());
  GenerateOptions options;
  options.max_tokens = 30;
  options.sampler = {.temperature = 0.8f, .seed = 3};
  const GenerateResult expected = generate(want, &*model.tokenizer, options);

  const CSession session = make_session(tiny_ctx());
  set_temperature(session.get(), 0.8f, 3);
  feed(session.get(), prompt());
  CHECK(steps(session.get(), 10) == std::vector(expected.ids.begin(), expected.ids.begin() + 10));
  ok(mixtral_session_reset(session.get()));
  feed(session.get(), prompt());
  Heard heard;
  const mixtral_generate_params p = generation(heard, 30);
  mixtral_generate_result result{};
  result.struct_size = sizeof result;
  ok(mixtral_session_generate(session.get(), &p, &result));
  CHECK(heard.tokens == expected.ids);
  CHECK(heard.text == expected.text);
  CHECK(result.n_tokens == 30);
  CHECK(result.stop_reason == MIXTRAL_STOP_MAX_TOKENS);
  CHECK(tokens_of(session.get()).size() == prompt().size() + 30);
}

TEST_CASE("generate stops at a stop string, a stop token, the callback's word, and a full context") {
  Heard all;
  const CSession session = make_session(tiny_ctx());
  set_temperature(session.get(), 0);
  const auto run = [&](Heard& heard, auto change) {
    ok(mixtral_session_reset(session.get()));
    feed(session.get(), prompt());
    mixtral_generate_params p = generation(heard, 40);
    change(p);
    mixtral_generate_result result{};
    result.struct_size = sizeof result;
    ok(mixtral_session_generate(session.get(), &p, &result));
    CHECK(result.n_tokens == static_cast<std::int64_t>(heard.tokens.size()));
    return result.stop_reason;
  };
  CHECK(run(all, [](auto&) {}) == MIXTRAL_STOP_MAX_TOKENS);
  Heard heard;
  const mixtral_string stop = {all.text.data() + 9, 5};
  CHECK(run(heard, [&](auto& p) {
          p.stop_strings = &stop;
          p.n_stop_strings = 1;
        }) == MIXTRAL_STOP_STRING);
  CHECK(heard.text == all.text.substr(0, all.text.find(std::string(stop.data, stop.size))));
  heard = {};
  CHECK(run(heard, [&](auto& p) {
          p.stop_tokens = &all.tokens[4];
          p.n_stop_tokens = 1;
        }) == MIXTRAL_STOP_TOKEN);
  heard = {};
  heard.stop_after = 3;
  CHECK(run(heard, [](auto&) {}) == MIXTRAL_STOP_CALLBACK);
  CHECK(heard.tokens.size() == 3);

  const auto room = static_cast<std::int64_t>(prompt().size()) + 2;
  const CSession small = make_session(tiny_ctx(), session_params(0, room));
  set_temperature(small.get(), 0);
  feed(small.get(), prompt());
  heard = {};
  const mixtral_generate_params p = generation(heard, 40);
  mixtral_generate_result result{};
  result.struct_size = sizeof result;
  ok(mixtral_session_generate(small.get(), &p, &result));
  CHECK(result.stop_reason == MIXTRAL_STOP_CONTEXT_FULL);
  CHECK(heard.tokens.size() == 3);
  CHECK(state_of(small.get()).n_tokens == room);
  std::int32_t token = -5;
  CHECK(refused(mixtral_session_step(small.get(), &token), MIXTRAL_CONTEXT_FULL) ==
        "step: no room for a token after " + std::to_string(room) + " in a context of " + std::to_string(room));
  CHECK(token == -5);
}

TEST_CASE("sample leaves the choice to the host") {
  const CSession session = make_session(tiny_ctx());
  set_temperature(session.get(), 0);
  std::int32_t token = -5;
  CHECK(refused(mixtral_session_sample(session.get(), &token), MIXTRAL_INVALID_ARGUMENT) ==
        "sample: there are no logits, eval a token first");
  feed(session.get(), prompt());
  CHECK(refused(mixtral_session_sample(session.get(), &token), MIXTRAL_INVALID_ARGUMENT) ==
        "sample: " + std::to_string(prompt().size()) + " tokens are queued, eval them first");
  ok(mixtral_session_eval(session.get()));
  ok(mixtral_session_sample(session.get(), &token));
  const auto logits = logits_of(session.get(), prompt().size() - 1);
  CHECK(token == std::max_element(logits.begin(), logits.end()) - logits.begin());
  CHECK(state_of(session.get()).n_tokens == state_of(session.get()).n_computed);
}

TEST_CASE("the logits of every row that was fed with MIXTRAL_FEED_LOGITS can be read until the next eval") {
  const CSession session = make_session(tiny_ctx()), other = make_session(tiny_ctx());
  feed(session.get(), {1, 2, 3});
  feed(session.get(), {4, 5}, MIXTRAL_FEED_LOGITS);
  feed(session.get(), {6});
  ok(mixtral_session_eval(session.get()));
  feed(other.get(), {1, 2, 3, 4});
  ok(mixtral_session_eval(other.get()));
  CHECK(logits_of(session.get(), 3) == logits_of(other.get(), 3));
  CHECK(logits_of(session.get(), 5).size() == 4096);
  std::size_t n = 0;
  CHECK(
      refused(mixtral_session_logits(session.get(), 2, nullptr, 0, &n), MIXTRAL_INVALID_ARGUMENT).find("position 2") !=
      std::string::npos);
  CHECK(refused(mixtral_session_logits(session.get(), 6, nullptr, 0, &n), MIXTRAL_INVALID_ARGUMENT) ==
        "logits: position 6 of 6 computed tokens");
  feed(session.get(), {7});
  ok(mixtral_session_eval(session.get()));
  CHECK(mixtral_session_logits(session.get(), 3, nullptr, 0, &n) == MIXTRAL_INVALID_ARGUMENT);
}

TEST_CASE("the logits callback bans, and may stop the call before a token is drawn") {
  const CSession session = make_session(tiny_ctx());
  set_temperature(session.get(), 0);
  feed(session.get(), prompt());
  const auto free = steps(session.get(), 1);
  ok(mixtral_session_reset(session.get()));
  std::int32_t banned = free[0];
  ok(mixtral_session_set_logits_callback(
      session.get(),
      [](void* user, float* logits, std::size_t n) {
        CHECK(n == 4096);
        logits[*static_cast<std::int32_t*>(user)] = -std::numeric_limits<float>::infinity();
        return 0;
      },
      &banned));
  feed(session.get(), prompt());
  CHECK(steps(session.get(), 1) != free);
  const auto before = tokens_of(session.get());
  ok(mixtral_session_set_logits_callback(
      session.get(), [](void*, float*, std::size_t) { return 1; }, nullptr));
  std::int32_t token;
  CHECK(refused(mixtral_session_step(session.get(), &token), MIXTRAL_CANCELLED) == "the logits callback said stop");
  CHECK(tokens_of(session.get()) == before);
  CHECK(state_of(session.get()).n_computed == static_cast<std::int64_t>(before.size()));
  ok(mixtral_session_set_logits_callback(session.get(), nullptr, nullptr));
  ok(mixtral_session_step(session.get(), &token));
}

TEST_CASE("set_tokens, truncate and fork keep what is computed, with the same bits") {
  const CSession session = make_session(tiny_ctx(), session_params(MIXTRAL_SESSION_RECORD_ROUTES));
  set_temperature(session.get(), 1, 9);
  feed(session.get(), prompt());
  steps(session.get(), 5);
  mixtral_session* raw = nullptr;
  ok(mixtral_session_fork(session.get(), &raw));
  const CSession fork(raw);
  const mixtral_session_state state = state_of(fork.get());
  CHECK(state.kv_bytes > 0);
  CHECK(state.kv_shared_bytes == state.kv_bytes);
  mixtral_session_state first{};  // of a program that was compiled with 1.0
  first.struct_size = offsetof(mixtral_session_state, kv_shared_bytes);
  ok(mixtral_session_info(fork.get(), &first));
  CHECK(first.kv_bytes == state.kv_bytes);
  CHECK(first.kv_shared_bytes == 0);
  CHECK(route_of(fork.get(), 3) == route_of(session.get(), 3));
  CHECK(steps(fork.get(), 6) == steps(session.get(), 6));
  auto ids = tokens_of(session.get());
  ids.resize(10);
  ids.push_back(77);
  std::size_t kept = 0;
  ok(mixtral_session_set_tokens(session.get(), ids.data(), ids.size(), &kept));
  CHECK(kept == 10);
  ok(mixtral_session_eval(session.get()));
  const CSession fresh = make_session(tiny_ctx());
  feed(fresh.get(), ids);
  ok(mixtral_session_eval(fresh.get()));
  CHECK(logits_of(session.get(), 10) == logits_of(fresh.get(), 10));
  CHECK(refused(mixtral_session_truncate(session.get(), 12), MIXTRAL_INVALID_ARGUMENT) ==
        "truncate: to 12 of 11 computed tokens");
  ok(mixtral_session_truncate(session.get(), 4));
  CHECK(tokens_of(session.get()).size() == 4);
  std::size_t n = 0;
  CHECK(mixtral_session_routes(session.get(), 4, nullptr, nullptr, 0, &n) == MIXTRAL_INVALID_ARGUMENT);
}

TEST_CASE("routes and counts tell the same, and a step that fails leaves none") {
  ok(mixtral_ctx_reset_routing_counts(tiny_ctx()));
  const mixtral_session_params p = session_params(MIXTRAL_SESSION_RECORD_ROUTES);
  const CSession session = make_session(tiny_ctx(), p);
  set_temperature(session.get(), 0);
  feed(session.get(), {1, 20, 30, 40, 50});
  ok(mixtral_session_cancel(session.get()));
  CHECK(mixtral_session_eval(session.get()) == MIXTRAL_CANCELLED);
  CHECK(total_choices() == 0);
  ok(mixtral_session_eval(session.get()));
  std::vector<std::uint64_t> counts(5 * 8);
  for (std::size_t position = 0; position < 5; ++position) {
    const auto route = route_of(session.get(), position);
    REQUIRE(route.size() == 5 * 2);
    for (std::size_t i = 0; i < route.size(); ++i) ++counts[i / 2 * 8 + static_cast<std::size_t>(route[i])];
  }
  CHECK(counts == read_all<std::uint64_t>([](std::uint64_t* out, std::size_t capacity, std::size_t* n) {
          return mixtral_ctx_routing_counts(tiny_ctx(), out, capacity, n);
        }));
  std::int32_t experts[10];
  float weights[10];
  std::size_t n = 0;
  ok(mixtral_session_routes(session.get(), 2, experts, weights, 10, &n));
  for (int layer = 0; layer < 5; ++layer) {
    CHECK(weights[2 * layer] >= weights[2 * layer + 1]);
    CHECK(weights[2 * layer] + weights[2 * layer + 1] == doctest::Approx(1));
  }
  Heard heard;
  mixtral_generate_params g = generation(heard, 4);
  g.flags = MIXTRAL_GENERATE_IGNORE_EOS;
  ok(mixtral_session_generate(session.get(), &g, nullptr));
  CHECK(total_choices() == (5 + 3) * 5 * 2);  // the last drawn token is queued
  ok(mixtral_session_reset_routes(session.get()));
  CHECK(mixtral_session_routes(session.get(), 2, nullptr, nullptr, 0, &n) == MIXTRAL_INVALID_ARGUMENT);
  ok(mixtral_session_eval(session.get()));
  CHECK(route_of(session.get(), 8).size() == 10);
  const CSession plain = make_session(tiny_ctx());
  feed(plain.get(), {1});
  ok(mixtral_session_eval(plain.get()));
  CHECK(refused(mixtral_session_routes(plain.get(), 0, nullptr, nullptr, 0, &n), MIXTRAL_INVALID_ARGUMENT)
            .find("without MIXTRAL_SESSION_RECORD_ROUTES") != std::string::npos);
}

TEST_CASE("a session says which token it does not take, and nothing changes") {
  const CSession session = make_session(tiny_ctx(), session_params(0, 6));
  feed(session.get(), {1, 2});
  const std::int32_t bad[] = {3, 4096};
  CHECK(refused(mixtral_session_feed(session.get(), bad, 2, 0), MIXTRAL_INVALID_ARGUMENT) ==
        "feed: token 4096 at index 1 is outside the vocabulary of 4096");
  std::size_t size = 0;
  char text[128];
  ok(mixtral_session_error(session.get(), text, sizeof text, &size));
  CHECK(std::string(text, size) == "feed: token 4096 at index 1 is outside the vocabulary of 4096");
  CHECK(refused(mixtral_session_feed(session.get(), bad, std::size_t{1} << 60, 0), MIXTRAL_CONTEXT_FULL) ==
        "feed: 1152921504606846976 tokens after 2 do not fit into a context of 6");
  CHECK(mixtral_session_feed(session.get(), nullptr, 2, 0) == MIXTRAL_INVALID_ARGUMENT);
  ok(mixtral_session_feed(session.get(), nullptr, 0, 0));
  CHECK(tokens_of(session.get()) == std::vector<std::int32_t>{1, 2});
  mixtral_session* raw = nullptr;
  mixtral_session_params p = session_params(0, 1 << 20);
  CHECK(mixtral_session_create(tiny_ctx(), &p, &raw) == MIXTRAL_INVALID_ARGUMENT);
  p = session_params(4);
  CHECK(mixtral_session_create(tiny_ctx(), &p, &raw) == MIXTRAL_INVALID_ARGUMENT);
  CHECK(raw == nullptr);
  mixtral_sampler_params s;
  ok(mixtral_sampler_params_init(&s, sizeof s));
  s.top_p = 2;
  CHECK(refused(mixtral_session_set_sampler(session.get(), &s), MIXTRAL_INVALID_ARGUMENT) ==
        "sampler: top_p is 2, expected above 0 and at most 1");
}

TEST_CASE("a cancel ends the next call once, and can be forgotten") {
  const CSession session = make_session(tiny_ctx());
  feed(session.get(), {1, 2, 3});
  ok(mixtral_session_cancel(session.get()));
  std::int32_t token;
  CHECK(refused(mixtral_session_step(session.get(), &token), MIXTRAL_CANCELLED) == "cancelled");
  CHECK(state_of(session.get()).n_computed == 0);
  ok(mixtral_session_step(session.get(), &token));
  ok(mixtral_session_cancel(session.get()));
  ok(mixtral_session_clear_cancel(session.get()));
  ok(mixtral_session_step(session.get(), &token));
  CHECK(mixtral_session_cancel(nullptr) == MIXTRAL_OK);
}

TEST_CASE("a cancel from another thread ends a long prompt") {
  const CSession session = make_session(tiny_ctx());
  std::vector<std::int32_t> ids(512, 7);
  std::atomic<bool> begun{false};
  for (;;) {  // until the cancel came in time
    ok(mixtral_session_reset(session.get()));
    feed(session.get(), ids);
    begun = false;
    std::thread canceller([&] {
      while (!begun) std::this_thread::yield();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      mixtral_session_cancel(session.get());
    });
    begun = true;
    const mixtral_status status = mixtral_session_eval(session.get());
    canceller.join();
    if (status == MIXTRAL_OK) continue;
    CHECK(status == MIXTRAL_CANCELLED);
    CHECK(state_of(session.get()).n_computed == 0);
    CHECK(state_of(session.get()).n_tokens == 512);
    break;
  }
}

TEST_CASE("keys and values may be kept in three types, and a program of the first version gets the default") {
  mixtral_session_params p = session_params();
  CHECK(p.kv_type == MIXTRAL_KV_BF16);
  std::int64_t bytes[3];
  std::vector<float> logits[3];
  for (const std::int32_t type : {MIXTRAL_KV_BF16, MIXTRAL_KV_F32, MIXTRAL_KV_I8}) {
    p.kv_type = type;
    const CSession session = make_session(tiny_ctx(), p);
    feed(session.get(), prompt());
    ok(mixtral_session_eval(session.get()));
    bytes[type] = state_of(session.get()).kv_bytes;
    logits[type] = logits_of(session.get(), prompt().size() - 1);
  }
  mixtral_info info{};
  info.struct_size = sizeof info;
  ok(mixtral_ctx_info(tiny_ctx(), &info));
  CHECK(bytes[MIXTRAL_KV_BF16] == info.kv_bytes_per_page);
  CHECK(bytes[MIXTRAL_KV_F32] == 2 * bytes[MIXTRAL_KV_BF16]);
  CHECK(bytes[MIXTRAL_KV_I8] < bytes[MIXTRAL_KV_BF16]);
  CHECK(logits[MIXTRAL_KV_F32] != logits[MIXTRAL_KV_BF16]);
  CHECK(logits[MIXTRAL_KV_I8] != logits[MIXTRAL_KV_BF16]);

  mixtral_session* session = nullptr;
  for (const std::int32_t bad : {-1, 3}) {
    p.kv_type = bad;
    CHECK(refused(mixtral_session_create(tiny_ctx(), &p, &session), MIXTRAL_INVALID_ARGUMENT) ==
          str("params: kv_type is ", bad, ", expected MIXTRAL_KV_*"));
  }
  p.struct_size = offsetof(mixtral_session_params, kv_type);  // what stands behind is not read
  ok(mixtral_session_create(tiny_ctx(), &p, &session));
  const CSession first_version(session);
  feed(first_version.get(), prompt());
  ok(mixtral_session_eval(first_version.get()));
  CHECK(logits_of(first_version.get(), prompt().size() - 1) == logits[MIXTRAL_KV_BF16]);
}

TEST_CASE("a callback may use other sessions and cancel or destroy its own; the rest is busy") {
  const CSession other = make_session(tiny_ctx());
  mixtral_session* session = make_session(tiny_ctx()).release();
  set_temperature(session, 0);
  feed(session, prompt());
  struct User {
    mixtral_session *session, *other;
    int calls = 0;
  } callee{session, other.get()};
  mixtral_generate_params p;
  ok(mixtral_generate_params_init(&p, sizeof p));
  p.user = &callee;
  p.on_token = [](void* u, std::int32_t, const char*, std::size_t) {
    auto& user = *static_cast<User*>(u);
    std::int32_t token;
    std::size_t n;
    CHECK(mixtral_session_step(user.session, &token) == MIXTRAL_BUSY);
    CHECK(mixtral_session_reset(user.session) == MIXTRAL_BUSY);
    CHECK(mixtral_session_tokens(user.session, nullptr, 0, &n) == MIXTRAL_BUSY);
    CHECK(mixtral_session_feed(user.other, &(token = 5), 1, 0) == MIXTRAL_OK);
    CHECK(mixtral_session_step(user.other, &token) == MIXTRAL_OK);
    if (++user.calls == 3) mixtral_session_destroy(user.session);
    return 0;
  };
  CHECK(mixtral_session_generate(session, &p, nullptr) == MIXTRAL_CANCELLED);  // and it is gone
  CHECK(callee.calls == 3);
  CHECK(tokens_of(other.get()).size() == 6);
}

TEST_CASE("an exception of a C++ callback ends the call and nothing else") {
  const CSession session = make_session(tiny_ctx());
  feed(session.get(), prompt());
  Heard heard;
  mixtral_generate_params p = generation(heard, 5);
  p.on_token = [](void*, std::int32_t, const char*, std::size_t) -> std::int32_t { throw 7; };
  CHECK(mixtral_session_generate(session.get(), &p, nullptr) == MIXTRAL_INTERNAL);
  CHECK(tokens_of(session.get()).size() == prompt().size() + 1);
  std::int32_t token;
  ok(mixtral_session_step(session.get(), &token));
}
