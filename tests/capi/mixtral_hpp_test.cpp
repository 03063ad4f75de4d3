#include "mixtral.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <thread>

namespace c = mixtral::c;

namespace {

struct Thrown {};  // no std::exception: any type has to come through

const std::string kPrompt = "RETURN VALUE\n       On success,";

c::Context tiny(c::ContextOptions options = {}) { return c::Context(MIXTRAL_TINY_DIR, std::move(options)); }

c::Session greedy(const c::Context& context) {
  c::Session session(context);
  auto sampler = c::Session::sampler_defaults();
  sampler.temperature = 0;
  session.set_sampler(sampler);
  session.feed(context.tokenize(kPrompt));
  return session;
}

// The text of n more tokens.
std::string written(c::Session& session, std::int64_t n) {
  std::string out;
  c::GenerateOptions options;
  options.max_tokens = n;
  options.on_token = [&](std::int32_t, std::string_view text) { return out += text, true; };
  session.generate(options);
  return out;
}

}  // namespace

TEST_CASE("mixtral.hpp: an error has the library's status and text") {
  try {
    const c::Context context("no/such/model");
    FAIL("opened");
  } catch (const c::Error& error) {
    CHECK(error.status() == MIXTRAL_NOT_FOUND);
    CHECK(std::string(error.what()).find("no/such/model") != std::string::npos);
  }
}

TEST_CASE("mixtral.hpp: a conversation, its messages, and one that is brought back") {
  const c::Context context = tiny();
  c::Session session(context);
  CHECK(session.messages().empty());
  session.begin_chat();
  session.add({{MIXTRAL_ROLE_SYSTEM, "brief"}});
  std::string heard;
  c::GenerateOptions options;
  options.max_tokens = 6;
  options.on_token = [&](std::int32_t, std::string_view text) { return heard += text, true; };
  CHECK(session.say("NAME", options).n_tokens == 6);
  const std::vector<c::Message> messages = session.messages();
  REQUIRE(messages.size() == 3);
  CHECK(messages[1].text == "NAME");
  CHECK(messages[2].text == heard);
  CHECK(messages[2].tokens.size() == 6);

  c::Session other(context);
  other.begin_chat(MIXTRAL_CHAT_V1);
  other.add(messages);
  other.add({{MIXTRAL_ROLE_USER, "FILES"}});
  CHECK(other.answer(options).n_kept == 0);
  CHECK(session.say("FILES", options).n_kept > 0);
  session.keep_messages(1);
  CHECK(session.messages().size() == 1);
  CHECK_THROWS_AS(session.say("[INST]", options), c::Error);
}

TEST_CASE("mixtral.hpp: texts, ids and sizes go both ways") {
  const c::Context context = tiny();
  CHECK(context.info().n_experts == 8);
  const c::Tokens tokens = context.tokenize(kPrompt);
  CHECK(tokens.front() == context.info().bos_id);
  CHECK(context.detokenize(tokens) == kPrompt);
  CHECK(context.tokenize("") == c::Tokens{context.info().bos_id});
  CHECK(context.tokenize("", 0).empty());
  CHECK(context.detokenize({}).empty());
  CHECK(context.token_bytes(context.info().bos_id).empty());
  CHECK(context.is_eos(context.info().eos_id));
  CHECK_FALSE(context.is_eos(-1));

  std::string pieces;
  for (const std::int32_t token : tokens) pieces += context.token_bytes(token);
  CHECK(pieces == " " + kPrompt);
}

TEST_CASE("mixtral.hpp: answers larger than the first guess are whole") {
  const c::Context context = tiny();
  const std::string bytes(100, '\x01');  // a token for each byte, more than half as many as the text has bytes
  const c::Tokens tokens = context.tokenize(bytes, 0);
  CHECK(tokens.size() >= bytes.size());
  CHECK(context.detokenize(tokens) == bytes);

  const std::string text(2000, 'x');
  const c::Tokens chat = context.chat_tokens({{MIXTRAL_ROLE_USER, text}});
  CHECK(chat.size() > 256);
  CHECK(context.detokenize(chat).find(text) != std::string::npos);

  const auto longest = std::max_element(tokens.begin(), tokens.end());
  c::Tokens repeated(20, *longest);
  std::size_t size = 0;
  for (std::int32_t id = 3; id < 4096; ++id) {
    if (const std::size_t n = context.token_bytes(id).size(); n > size) size = n, repeated.assign(20, id);
  }
  CHECK(size > 8);
  CHECK(context.detokenize(repeated).size() >= 20 * size - 1);
}

TEST_CASE("mixtral.hpp: sessions outlive their context, move and fork") {
  auto context = std::make_unique<c::Context>(tiny());
  c::Session first = greedy(*context), other(*context);
  context.reset();
  c::Session fork = first.fork();
  const std::string text = written(first, 8);
  CHECK_FALSE(text.empty());
  CHECK(fork.tokens().size() + 8 == first.tokens().size());
  other = std::move(fork);
  CHECK(written(other, 8) == text);
  CHECK(other.tokens() == first.tokens());
}

TEST_CASE("mixtral.hpp: what on_token throws comes out of generate, and the session goes on from there") {
  const c::Context context = tiny();
  c::Session session = greedy(context), undisturbed = greedy(context);
  std::string text;
  c::GenerateOptions options;
  options.on_token = [&](std::int32_t, std::string_view part) -> bool {
    text += part;
    if (text.size() >= 5) throw Thrown{};
    return true;
  };
  CHECK_THROWS_AS(session.generate(options), Thrown);
  const auto drawn = static_cast<std::int64_t>(session.tokens().size() - context.tokenize(kPrompt).size());
  CHECK(drawn > 0);
  CHECK(written(undisturbed, drawn) == text);
  CHECK(written(session, 8) == written(undisturbed, 8));
}

TEST_CASE("mixtral.hpp: false from on_token ends the text, and an exception of the past is not thrown again") {
  const c::Context context = tiny();
  c::Session session = greedy(context);
  c::GenerateOptions options;
  options.on_token = [](std::int32_t, std::string_view) -> bool { throw Thrown{}; };
  CHECK_THROWS_AS(session.generate(options), Thrown);
  options.on_token = [](std::int32_t, std::string_view) { return false; };
  const mixtral_generate_result result = session.generate(options);
  CHECK(result.stop_reason == MIXTRAL_STOP_CALLBACK);
  CHECK(result.n_tokens == 1);
}

TEST_CASE("mixtral.hpp: a callback may use another session, and what that throws comes out of both") {
  const c::Context context = tiny();
  c::Session outer = greedy(context), inner = greedy(context);
  c::GenerateOptions inside, options;
  inside.on_token = [](std::int32_t, std::string_view) -> bool { throw Thrown{}; };
  options.on_token = [&](std::int32_t, std::string_view) { return inner.generate(inside), true; };
  CHECK_THROWS_AS(outer.generate(options), Thrown);
}

TEST_CASE("mixtral.hpp: what a logits editor throws comes out of step, which may be repeated") {
  const c::Context context = tiny();
  c::Session session = greedy(context), undisturbed = greedy(context);
  session.set_logits_editor([](float*, std::size_t) { throw Thrown{}; });
  CHECK_THROWS_AS(session.step(), Thrown);
  session.set_logits_editor({});
  const std::int32_t token = undisturbed.step();
  CHECK(session.step() == token);

  session.set_logits_editor([](float* logits, std::size_t n) {
    CHECK(n == 4096);
    std::fill(logits, logits + n, -INFINITY);
    logits[7] = 0;
  });
  CHECK(session.step() == 7);
}

TEST_CASE("mixtral.hpp: the log gets its lines, and what it throws comes out of the constructor") {
  std::string lines;
  c::ContextOptions options;
  options.log = [&](std::int32_t level, std::string_view text) { lines += std::to_string(level) + std::string(text); };
  tiny(options);
  CHECK(lines.find("8 experts") != std::string::npos);
  options.log = [](std::int32_t, std::string_view) { throw Thrown{}; };
  CHECK_THROWS_AS(tiny(options), Thrown);
}

TEST_CASE("mixtral.hpp: the host's threads compute the same, also if its pool throws") {
  const c::Context context = tiny();
  c::Session session = greedy(context);
  const std::int32_t first = session.step(), second = session.step();

  std::atomic<int> calls{0}, most{0};
  std::atomic<bool> broken{false};
  c::ContextOptions options;
  options.executor = MIXTRAL_EXECUTOR_HOST;
  options.n_threads = 2;
  options.run = [&](std::int32_t n_jobs, const std::function<void()>& job) {
    if (broken) throw Thrown{};
    ++calls;
    most = std::max<int>(most, n_jobs);
    std::vector<std::thread> threads;
    for (std::int32_t i = 0; i < n_jobs; ++i) threads.emplace_back(job);
    for (std::thread& thread : threads) thread.join();
  };
  const c::Context hosted = tiny(options);
  c::Session same = greedy(hosted);
  CHECK(same.step() == first);
  CHECK(calls > 0);
  CHECK(most == 2);

  broken = true;
  CHECK_THROWS_AS(same.step(), Thrown);  // the step is done nevertheless
  CHECK(same.tokens() == session.tokens());
  CHECK(same.tokens().back() == second);
}

TEST_CASE("mixtral.hpp: cancel ends a generation from another thread, and a late one can be forgotten") {
  const c::Context context = tiny();
  c::Session session = greedy(context);
  c::GenerateOptions options;
  options.on_token = [&](std::int32_t, std::string_view) {
    std::thread([&] { session.cancel(); }).join();
    return true;
  };
  try {
    session.generate(options);
    FAIL("not cancelled");
  } catch (const c::Error& error) {
    CHECK(error.status() == MIXTRAL_CANCELLED);
  }
  session.cancel();
  session.clear_cancel();
  CHECK_NOTHROW(session.eval());
}

TEST_CASE("mixtral.hpp: logits, routes and counts have the model's shapes") {
  const c::Context context = tiny();
  auto params = c::detail::defaults(mixtral_session_params_init);
  params.flags = MIXTRAL_SESSION_RECORD_ROUTES;
  c::Session session(context, params);
  CHECK(session.set_tokens({1, 5, 9}) == 0);
  session.eval();
  CHECK(session.set_tokens({1, 5, 8}) == 2);
  session.eval();
  CHECK(session.info().n_computed == 3);
  CHECK(session.logits(2).size() == 4096);
  CHECK_THROWS_AS(session.logits(0), c::Error);
  CHECK(session.routes(2).size() == 5 * 2);
  session.reset_routes();
  CHECK_THROWS_AS(session.routes(2), c::Error);

  const auto sum = [](const std::vector<std::uint64_t>& counts) {
    return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
  };
  CHECK(context.routing_counts().size() == 5 * 8);
  CHECK(sum(context.routing_counts()) == (3 + 1) * 5 * 2);
  context.reset_routing_counts();
  CHECK(sum(context.routing_counts()) == 0);
  session.truncate(1);
  CHECK(session.tokens() == c::Tokens{1});
  session.reset();
  CHECK(session.tokens().empty());
}

TEST_CASE("mixtral.hpp: a context may do without the head") {
  c::ContextOptions options;
  options.head = MIXTRAL_HEAD_NONE;
  const c::Context context = tiny(), headless = tiny(options);
  const c::Tokens ids = context.tokenize(kPrompt);
  CHECK(headless.hidden(ids) == context.hidden(ids));
  c::Session session(headless);
  session.feed(ids);
  try {
    session.eval();
    FAIL("an eval without a head");
  } catch (const c::Error& error) {
    CHECK(error.status() == MIXTRAL_NOT_FOUND);
  }
}
