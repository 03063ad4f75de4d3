// mixtral.h: conversations on a session.
#include "mixtral/runtime/conversation.hpp"

#include <array>
#include <cstring>

#include "support/capi.hpp"

using namespace mixtral;
using namespace mixtral::test;

namespace {

CSession begun(std::uint32_t flags = 0, std::int64_t max_positions = 0) {
  CSession session = make_session(tiny_ctx(), session_params(flags, max_positions));
  set_temperature(session.get(), 0);
  ok(mixtral_chat_begin(session.get(), MIXTRAL_CHAT_AUTO, 0));
  return session;
}

mixtral_chat_message message(std::int32_t role, std::string_view text) {
  return {sizeof(mixtral_chat_message), role, text.data(), text.size(), nullptr, 0};
}

mixtral_generate_params most(std::int64_t n) {
  mixtral_generate_params p;
  ok(mixtral_generate_params_init(&p, sizeof p));
  p.max_tokens = n;
  return p;
}

mixtral_status try_say(mixtral_session* session, std::string_view text, std::int64_t n = 12) {
  const mixtral_generate_params p = most(n);
  return mixtral_chat_say(session, text.data(), text.size(), &p, nullptr);
}

std::string text_of(mixtral_session* session, std::size_t index, std::int32_t* role = nullptr) {
  const auto text = read_all<char>([&](char* out, std::size_t capacity, std::size_t* n) {
    return mixtral_chat_message_text(session, index, role, out, capacity, n);
  });
  return {text.begin(), text.end()};
}

std::vector<std::int32_t> ids_of(mixtral_session* session, std::size_t index) {
  return read_all<std::int32_t>([&](std::int32_t* out, std::size_t capacity, std::size_t* n) {
    return mixtral_chat_message_tokens(session, index, out, capacity, n);
  });
}

}  // namespace

TEST_CASE("a conversation through C is the C++ library's") {
  const LoadedModel model(tiny_dir(), {.threads = 1});
  Session want_session(model);
  Sampler want_sampler({.temperature = 0});
  Conversation want(model);
  want.add({ChatRole::kSystem, "Answer briefly."});

  const CSession session = begun();
  const mixtral_chat_message system = message(MIXTRAL_ROLE_SYSTEM, "Answer briefly.");
  ok(mixtral_chat_add(session.get(), &system, 1));
  GenerateOptions options;
  options.max_tokens = 12;
  for (const std::string text : {"NAME", "DESCRIPTION", ""}) {
    const Answer answer = want.say(want_session, want_sampler, text, options);
    std::string heard;
    mixtral_generate_params p = most(12);
    p.user = &heard;
    p.on_token = [](void* user, std::int32_t, const char* part, std::size_t size) {
      static_cast<std::string*>(user)->append(part, size);
      return 0;
    };
    mixtral_generate_result result{};
    result.struct_size = sizeof result;
    ok(mixtral_chat_say(session.get(), text.data(), text.size(), &p, &result));
    CHECK(heard == answer.text);
    CHECK(result.n_tokens == answer.n_tokens);
    CHECK(result.n_prompt == answer.n_prompt);
    CHECK(result.n_kept == answer.n_kept);
    CHECK(result.stop_reason == static_cast<std::int32_t>(answer.reason));
  }
  CHECK(state_of(session.get()).n_messages == 7);
  for (std::size_t i = 0; i < 7; ++i) {
    std::int32_t role = -1;
    CHECK(text_of(session.get(), i, &role) == want.messages()[i].text);
    CHECK(role == static_cast<std::int32_t>(want.messages()[i].role));
    CHECK(ids_of(session.get(), i) == want.messages()[i].ids);
  }
  CHECK(tokens_of(session.get()) == std::vector(want_session.tokens().begin(), want_session.tokens().end()));
}

TEST_CASE("routes after a conversation are those of its tokens in a new session") {
  const CSession session = begun(MIXTRAL_SESSION_RECORD_ROUTES);
  ok(try_say(session.get(), "NAME"));
  ok(try_say(session.get(), "DESCRIPTION"));
  ok(mixtral_chat_keep(session.get(), 2));
  ok(try_say(session.get(), "EXAMPLES and more"));  // other tokens in place of computed ones
  const auto tokens = tokens_of(session.get());
  const auto computed = static_cast<std::size_t>(state_of(session.get()).n_computed);
  const CSession fresh = make_session(tiny_ctx(), session_params(MIXTRAL_SESSION_RECORD_ROUTES));
  feed(fresh.get(), {tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(computed)});
  ok(mixtral_session_eval(fresh.get()));
  for (std::size_t at = 0; at < computed; ++at) {
    const auto route = [&](mixtral_session* s) {
      return read_all<std::int32_t>([&](std::int32_t* out, std::size_t capacity, std::size_t* n) {
        return mixtral_session_routes(s, at, out, nullptr, capacity, n);
      });
    };
    CHECK(route(session.get()) == route(fresh.get()));
  }
}

TEST_CASE("forks, cancels, resets and stops of a conversation") {
  const CSession session = begun();
  ok(try_say(session.get(), "NAME"));
  ok(mixtral_session_cancel(session.get()));
  CHECK(try_say(session.get(), "DESCRIPTION") == MIXTRAL_CANCELLED);
  CHECK(state_of(session.get()).n_messages == 2);
  mixtral_session* made = nullptr;
  ok(mixtral_session_fork(session.get(), &made));
  const CSession fork(made);
  ok(try_say(fork.get(), "DESCRIPTION"));
  CHECK(state_of(fork.get()).n_messages == 4);
  ok(try_say(session.get(), "DESCRIPTION"));
  CHECK(text_of(fork.get(), 3) == text_of(session.get(), 3));

  const mixtral_chat_message ask[] = {message(MIXTRAL_ROLE_USER, "FILES"), message(MIXTRAL_ROLE_USER, "FILES")};
  CHECK(refused(mixtral_chat_add(session.get(), ask, 2), MIXTRAL_INVALID_ARGUMENT).find("message 5") !=
        std::string::npos);
  CHECK(state_of(session.get()).n_messages == 4);  // none of the two
  ok(mixtral_chat_add(session.get(), ask, 1));
  ok(mixtral_chat_answer(session.get(), nullptr, nullptr));
  CHECK(state_of(session.get()).n_messages == 6);
  CHECK(mixtral_chat_answer(session.get(), nullptr, nullptr) == MIXTRAL_INVALID_ARGUMENT);

  ok(mixtral_session_reset(session.get()));
  CHECK(state_of(session.get()).n_messages == -1);
  CHECK(refused(try_say(session.get(), "NAME"), MIXTRAL_INVALID_ARGUMENT).find("mixtral_chat_begin") !=
        std::string::npos);
}

TEST_CASE("what a conversation refuses, with the place") {
  const CSession session = begun(0, 60);
  const auto contains = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  CHECK(contains(refused(try_say(session.get(), "an [INST] of mine"), MIXTRAL_INVALID_ARGUMENT), "byte 3"));
  mixtral_generate_params p = most(4);
  p.flags = MIXTRAL_GENERATE_IGNORE_EOS;
  CHECK(
      contains(refused(mixtral_chat_say(session.get(), "x", 1, &p, nullptr), MIXTRAL_INVALID_ARGUMENT), "IGNORE_EOS"));
  CHECK(contains(refused(mixtral_chat_say(session.get(), nullptr, 1, nullptr, nullptr), MIXTRAL_INVALID_ARGUMENT),
                 "text is NULL"));
  const std::string words(400, 'w');
  CHECK(refused(try_say(session.get(), words), MIXTRAL_CONTEXT_FULL).find("60") != std::string::npos);
  CHECK(contains(refused(mixtral_chat_keep(session.get(), 1), MIXTRAL_INVALID_ARGUMENT), "1 messages of 0"));
  std::size_t n = 0;
  CHECK(
      contains(refused(mixtral_chat_message_text(session.get(), 0, nullptr, nullptr, 0, &n), MIXTRAL_INVALID_ARGUMENT),
               "message 0 of 0"));
  CHECK(contains(refused(mixtral_chat_begin(session.get(), 7, 0), MIXTRAL_INVALID_ARGUMENT), "style is 7"));
  CHECK(contains(refused(mixtral_chat_begin(session.get(), 0, 2), MIXTRAL_INVALID_ARGUMENT), "flags"));
  CHECK(state_of(session.get()).n_messages == 0);
}

TEST_CASE("a host of version 1.0 has smaller structs, and they are left alone behind their end") {
  const CSession session = begun();
  std::array<unsigned char, sizeof(mixtral_generate_result)> memory;
  memory.fill(0xEE);
  auto* result = reinterpret_cast<mixtral_generate_result*>(memory.data());
  constexpr std::size_t kSize = offsetof(mixtral_generate_result, n_prompt);
  result->struct_size = kSize;
  const mixtral_generate_params p = most(3);
  feed(session.get(), prompt());
  ok(mixtral_session_generate(session.get(), &p, result));
  CHECK(result->n_tokens == 3);
  for (std::size_t i = kSize; i < memory.size(); ++i) CHECK(memory[i] == 0xEE);
  mixtral_generate_result whole{};
  whole.struct_size = sizeof whole;
  const auto before = state_of(session.get());
  ok(mixtral_session_generate(session.get(), &p, &whole));
  CHECK(whole.n_prompt == before.n_tokens);
  CHECK(whole.n_kept == before.n_computed);
}
