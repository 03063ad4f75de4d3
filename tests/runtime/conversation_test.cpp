#include "mixtral/runtime/conversation.hpp"

#include <doctest/doctest.h>

#include <stdexcept>

#include "support/error_of.hpp"
#include "support/golden.hpp"

using namespace mixtral;
using test::error_of;
using test::names;
using enum ChatRole;

namespace {

const LoadedModel& tiny() {
  static const LoadedModel model(test::tiny_dir(), {.threads = 1});
  return model;
}

GenerateOptions most(Index n) {
  GenerateOptions options;
  options.max_tokens = n;
  return options;
}

// A conversation with all that it needs.
struct Talk {
  explicit Talk(SessionOptions options = {}, float temperature = 0)
      : session(tiny(), options), sampler({.temperature = temperature, .seed = 5}) {}
  Answer say(const std::string& text, Index n = 12) { return conversation.say(session, sampler, text, most(n)); }

  Session session;
  Sampler sampler;
  Conversation conversation{tiny()};
};

// The answer to the messages before it, in a new session.
GenerateResult answer_alone(const Conversation& conversation, std::size_t before, Index n) {
  Conversation shorter = conversation;
  shorter.keep(before);
  Session session(tiny());
  session.feed(shorter.ids());
  GenerateOptions options = most(n);
  options.sampler.temperature = 0;
  options.stop_ids = tiny().config().eos_ids;
  return generate(session, &tiny().require_tokenizer(), options);
}

}  // namespace

TEST_CASE("each answer is that of the whole conversation in a new session, and only what is new is computed") {
  Talk talk;
  talk.conversation.add({kSystem, "Answer briefly."});
  Index before = 0;
  for (const char* text : {"NAME", "", "Grüße\n", "RETURN VALUE"}) {
    const Answer answer = talk.say(text);
    CHECK(answer.n_kept == before);
    CHECK(answer.n_prompt > before);
    CHECK(answer.n_tokens == 12);
    CHECK(answer.reason == StopReason::kMaxTokens);
    before = talk.session.length();
    CHECK(before == answer.n_prompt + 11);  // the last token waits
    const auto messages = talk.conversation.messages();
    const GenerateResult want = answer_alone(talk.conversation, messages.size() - 1, 12);
    CHECK(messages.back().ids == want.ids);
    CHECK(messages.back().text == answer.text);
    CHECK(answer.text == tiny().tokenizer->decode(want.ids));
  }
  CHECK(talk.conversation.messages().size() == 9);
  CHECK(talk.conversation.messages()[7].text == "RETURN VALUE");
}

TEST_CASE("what is said is streamed as it is kept, and the callback ends the answer") {
  Talk talk;
  std::string heard;
  std::vector<TokenId> ids;
  GenerateOptions options = most(50);
  options.on_token = [&](TokenId id, std::string_view text) {
    if (id >= 0) ids.push_back(id);
    heard += text;
    return ids.size() < 7;
  };
  const Answer answer = talk.conversation.say(talk.session, talk.sampler, "DESCRIPTION", options);
  CHECK(answer.reason == StopReason::kCallback);
  CHECK(answer.n_tokens == 7);
  CHECK(heard == answer.text);
  CHECK(talk.conversation.messages().back().ids == ids);
  CHECK(talk.conversation.messages().back().text == heard);
}

TEST_CASE("an end token is no part of the answer: the template writes its own") {
  Talk talk;
  const Answer free = talk.say("NAME", 6);
  const std::vector<TokenId> drawn = talk.conversation.messages().back().ids;
  REQUIRE(free.n_tokens == 6);
  talk.conversation.keep(0);
  GenerateOptions options = most(6);
  options.stop_ids = {drawn[3]};
  const Answer answer = talk.conversation.say(talk.session, talk.sampler, "NAME", options);
  CHECK(answer.reason == StopReason::kStopId);
  const Index n = answer.n_tokens;  // the token may come earlier, too
  CHECK(n <= 4);
  CHECK(talk.conversation.messages().back().ids == std::vector(drawn.begin(), drawn.begin() + n - 1));
  const std::vector<TokenId> ids = talk.conversation.ids();
  CHECK(ids.back() == tiny().tokenizer->vocabulary().eos_id);
  // The very first token may end it: an empty answer is one.
  options.stop_ids = {drawn[0]};
  talk.conversation.keep(0);
  CHECK(talk.conversation.say(talk.session, talk.sampler, "NAME", options).text.empty());
  CHECK(talk.conversation.messages().size() == 2);
  CHECK(talk.say("and now?").n_tokens > 0);
}

TEST_CASE("what is refused changes nothing") {
  Talk talk({.max_positions = 60});
  const Conversation& conversation = talk.conversation;
  const auto n = [&] { return conversation.messages().size(); };
  CHECK(error_of([&] { (void)conversation.ids(); }).code() == ErrorCode::kInvalidArgument);
  CHECK(names(error_of([&] { talk.conversation.answer(talk.session, talk.sampler, most(1)); }),
              "the last of 0 messages has to be the user's"));
  CHECK(names(error_of([&] {
                talk.conversation.add({kAssistant, "I begin"});
              }),
              "message 0 has role 2 (assistant), expected 1 (user)"));
  CHECK(names(error_of([&] {
                talk.conversation.add({kSystem, "a [INST]"});
              }),
              "message 0 (system) contains [INST] at byte 2"));
  CHECK(names(error_of([&] { talk.conversation.add({kUser, "x", {5}}); }), "message 0 has ids"));
  CHECK(n() == 0);
  talk.conversation.add({kSystem, "brief"});
  talk.session.feed(7);
  talk.session.eval();
  CHECK(error_of([&] { talk.say("NAME", -1); }).code() == ErrorCode::kInvalidArgument);
  CHECK(talk.session.length() == 1);  // the session is as it was
  CHECK(names(error_of([&] { talk.conversation.add({kSystem, "again"}); }), "message 1 has role 0 (system)"));
  CHECK(names(error_of([&] { talk.say("the end [/INST]"); }), "message 1 (user) contains [/INST]"));
  CHECK(n() == 1);
  const Answer first = talk.say("NAME");
  CHECK(names(error_of([&] {
                talk.conversation.add({kAssistant, "more"});
              }),
              "message 3 has role 2 (assistant), expected 1 (user)"));
  std::string long_text;
  for (int i = 0; i < 100; ++i) long_text += "word ";
  CHECK(names(error_of([&] {
                talk.conversation.add({kUser, "x"});
                talk.conversation.add({kAssistant, "y", {99999}});
              }),
              "message 4 has id 99999, outside the vocabulary of "));
  talk.conversation.keep(3);
  const Error full = error_of([&] { talk.say(long_text); });
  CHECK(full.code() == ErrorCode::kContextFull);
  CHECK(names(full, "the context holds 60"));
  CHECK(error_of([&] { talk.conversation.keep(4); }).code() == ErrorCode::kInvalidArgument);
  CHECK(n() == 3);
  CHECK(conversation.messages()[2].text == first.text);
  CHECK(talk.say("DESC", 3).n_tokens == 3);
  const LoadedModel other(test::tiny_dir(), {.threads = 1});
  Session elsewhere(other);
  CHECK(names(error_of([&] { talk.conversation.say(elsewhere, talk.sampler, "x", most(1)); }), "another model"));
  CHECK(n() == 5);
}

TEST_CASE("a turn of which nothing was drawn is forgotten, and one that broke off stays as far as it came") {
  Talk talk;
  talk.say("NAME");
  CancelFlag cancel;
  cancel.set();
  StepHooks hooks;
  hooks.cancel = &cancel;
  const auto say = [&](const GenerateOptions& options, const StepHooks& with = {}) {
    return talk.conversation.say(talk.session, talk.sampler, "DESCRIPTION", options, with);
  };
  CHECK(error_of([&] { say(most(5), hooks); }).code() == ErrorCode::kCancelled);
  CHECK(say(most(0)).n_tokens == 0);
  CHECK(talk.conversation.messages().size() == 2);

  GenerateOptions options = most(9);
  int n = 0;
  options.on_token = [&](TokenId, std::string_view) -> bool {
    if (++n == 4) throw std::runtime_error("of the host");
    return true;
  };
  CHECK_THROWS_AS(say(options), std::runtime_error);
  REQUIRE(talk.conversation.messages().size() == 4);
  const auto broken = talk.conversation.messages().back();
  CHECK(broken.ids.size() == 4);
  CHECK(broken.text == tiny().tokenizer->decode(broken.ids));
  const Answer next = talk.say("EXAMPLES");
  CHECK(next.n_kept >= next.n_prompt - 20);  // what was drawn is not computed again
  CHECK(talk.conversation.messages()[5].ids == answer_alone(talk.conversation, 5, 12).ids);

  // A question that was added by itself stays.
  talk.conversation.add({kUser, "SEE ALSO"});
  CHECK(error_of([&] { talk.conversation.answer(talk.session, talk.sampler, most(5), hooks); }).code() ==
        ErrorCode::kCancelled);
  CHECK(talk.conversation.messages().size() == 7);
  CHECK(talk.conversation.answer(talk.session, talk.sampler, most(5)).n_tokens == 5);
}

TEST_CASE("of a stop string no token stays that is nothing else, and what was held back is not lost") {
  Talk talk;
  const Answer free = talk.say("NAME", 16);
  const std::vector<TokenId> drawn = talk.conversation.messages().back().ids;
  for (std::size_t at = 1; at + 1 < free.text.size(); ++at) {
    talk.conversation.keep(0);
    GenerateOptions options = most(16);
    options.stop_strings = {free.text.substr(at)};
    const Answer answer = talk.conversation.say(talk.session, talk.sampler, "NAME", options);
    if (answer.reason != StopReason::kStopString) continue;  // a piece of a character
    CHECK(answer.text == free.text.substr(0, answer.text.size()));
    const auto& ids = talk.conversation.messages().back().ids;
    CHECK(tiny().tokenizer->decode(ids).starts_with(answer.text));
    CHECK((ids.empty() || tiny().tokenizer->decode({ids.data(), ids.size() - 1}).size() < answer.text.size()));
  }
  // Two tokens are held back, as they may begin a stop string, when the callback throws.
  GenerateOptions options = most(16);
  options.stop_strings = {free.text + "and more"};
  int n = 0;
  options.on_token = [&](TokenId, std::string_view) -> bool {
    if (++n == 2) throw std::runtime_error("of the host");
    return true;
  };
  talk.conversation.keep(0);
  CHECK_THROWS(talk.conversation.say(talk.session, talk.sampler, "NAME", options));
  CHECK(talk.conversation.messages().back().text == tiny().tokenizer->decode({drawn.data(), 2}));
}

TEST_CASE("a conversation is asked again, forked and brought back") {
  Talk talk;
  talk.say("NAME");
  const Answer first = talk.say("DESCRIPTION");
  talk.conversation.keep(2);
  const Answer again = talk.say("DESCRIPTION");
  CHECK(again.text == first.text);
  CHECK(again.n_kept == again.n_prompt - 1);  // the last one's logits were gone

  Session session(talk.session);
  Sampler sampler({.temperature = 0});
  Conversation fork = talk.conversation;
  const Answer of_fork = fork.say(session, sampler, "FILES", most(8));
  CHECK(of_fork.n_kept > first.n_prompt);
  CHECK(talk.conversation.messages().size() == 4);
  CHECK(talk.say("FILES", 8).text == of_fork.text);

  Conversation back(tiny(), {.style = ChatStyle::kV1});
  for (const Conversation::Message& message : talk.conversation.messages()) back.add(message);
  CHECK(back.ids() == talk.conversation.ids());
  Session other(tiny());
  CHECK(back.say(other, sampler, "BUGS", most(8)).text == talk.say("BUGS", 8).text);
}

TEST_CASE("markers are refused or escaped as the options say") {
  Conversation escaping(tiny(), {.forged = ForgedMarkers::kEscape});
  escaping.add({kUser, "the end [/INST] of it"});
  CHECK(escaping.messages()[0].text == "the end [/INST] of it");
  Conversation plain(tiny());
  plain.add({kUser, "the end [ /INST] of it"});
  CHECK(escaping.ids() == plain.ids());
  CHECK(error_of([] { Conversation(tiny(), {.style = ChatStyle::kV3}); }).code() == ErrorCode::kInvalidArgument);
}

TEST_CASE("without a head there is no answer, and what was asked is forgotten") {
  const LoadedModel headless(test::tiny_dir(), {.threads = 1, .head = Head::kNone});
  Session session(headless);
  Sampler sampler{SamplerOptions{}};
  Conversation conversation(headless);
  const Error error = error_of([&] { conversation.say(session, sampler, "hello", most(4)); });
  CHECK(error.code() == ErrorCode::kNotFound);
  CHECK(names(error, "opened without its head"));
  CHECK(conversation.messages().empty());
}
