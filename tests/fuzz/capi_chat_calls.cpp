// The functions of mixtral.h about conversations, with arguments from the bytes, and what becomes of the messages.
#include "capi_player.hpp"
#include "expect.hpp"

namespace mixtral::fuzz {
namespace {

constexpr std::array<std::int32_t, 6> kStyles = {0, 1, 1, 3, 2, 100};

std::int32_t hear_token(void* user, std::int32_t token, const char* text, std::size_t size) {
  Live& live = *static_cast<Live*>(user);
  return live.player->on_token(live, token, text, size);
}

bool has_chat(const Live* live) { return live != nullptr && live->chat.has_value(); }

}  // namespace

Drawing::Drawing(Bytes& bytes, std::size_t vocab_size, Live* live)
    : params(bytes, mixtral_generate_params_init), stop_tokens(bytes, vocab_size), result(bytes) {
  params->flags = bytes.pick(kFlags);
  params->max_tokens = bytes.pick(std::array<std::int64_t, 12>{1, 2, 3, 4, 5, 6, 8, 10, 0, 100, -1, kLargest});
  bool bad = !params.valid() || params->flags > 1 || stop_tokens.null;
  for (std::size_t i = bytes.below(8) < 6 ? 0 : bytes.below(4); i > 0; --i) {
    const Text text(bytes);
    stops.push_back({text.data, text.size});
    bad = bad || text.invalid;
  }
  params->stop_strings = stops.data();
  params->n_stop_strings = stops.size();
  params->stop_tokens = stop_tokens.data;
  params->n_stop_tokens = stop_tokens.n;
  defaults = bytes.chance(8);
  hears = live != nullptr && bytes.chance(2);
  params->on_token = hears ? hear_token : nullptr;
  params->user = live;
  hears = hears && !defaults;
  invalid = (!result.is_null() && !result.valid()) || (!defaults && bad);
  negative = !defaults && params->max_tokens < 0;
  if (live == nullptr || live->busy > 0) return;
  live->heard.clear();
  live->heard.reserve(64);  // nothing allocates where an allocation is to fail
}

void Player::chat_tokens() {
  const CtxArgument c = any_ctx();
  const std::int32_t style = bytes_.pick(kStyles);
  const std::uint32_t flags = bytes_.pick(kFlags);
  const Messages messages(bytes_, world_.vocab_size());
  Out<std::int32_t> out(bytes_);
  const bool bad = !out.valid() || flags > 1 || messages.n == 0 || messages.data == nullptr;
  Terms terms{.invalid = c.ctx == nullptr || (c.ctx->tokenizer && bad)};
  if (c.ctx != nullptr && !c.ctx->tokenizer) terms.want = MIXTRAL_NOT_FOUND;
  const mixtral_status status = call(Function::chat_tokens, terms, [&] {
    return mixtral_chat_tokens(c.handle, style, flags, messages.data, messages.n, out.data(), out.capacity(),
                               out.size());
  });
  out.check(status);
}

void Player::chat_begin() {
  const SessionArgument s = any_session();
  const std::int32_t style = bytes_.pick(kStyles);
  const std::uint32_t flags = bytes_.pick(kFlags);
  const bool reads = s.live != nullptr && s.live->tokenizer;
  Terms terms{.live = s.live, .invalid = s.live == nullptr || (reads && flags > 1)};
  if (s.live != nullptr && !reads) terms.want = MIXTRAL_NOT_FOUND;
  const mixtral_status status =
      call(Function::chat_begin, terms, [&] { return mixtral_chat_begin(s.handle, style, flags); });
  if (status == MIXTRAL_OK) s.live->chat.emplace();
  after(s);
}

void Player::chat_add() {
  const SessionArgument s = any_session();
  const bool users_turn = !has_chat(s.live) || s.live->chat->empty() || s.live->chat->back().role != MIXTRAL_ROLE_USER;
  const Messages messages(bytes_, world_.vocab_size(), users_turn ? MIXTRAL_ROLE_USER : MIXTRAL_ROLE_ASSISTANT);
  const bool null = messages.data == nullptr && messages.n > 0;
  const mixtral_status status = call(Function::chat_add, {.live = s.live, .invalid = !has_chat(s.live) || null},
                                     [&] { return mixtral_chat_add(s.handle, messages.data, messages.n); });
  if (status == MIXTRAL_OK) {
    for (std::size_t i = 0; i < messages.n; ++i) {
      s.live->chat->push_back({messages.roles[i], std::string(messages.texts[i])});
    }
  }
  after(s);
}

// After a call that drew an answer, or not: `asked` messages of the user's were added for it.
void Player::check_drawn(Live& live, mixtral_status status, Drawing& d, std::size_t asked) {
  mixtral_session_state state{};
  state.struct_size = sizeof state;
  expect(mixtral_session_info(live.handle, &state) == MIXTRAL_OK, "a session says how far it is");
  const std::size_t before = live.chat->size() - asked;
  const bool answered = state.n_messages == static_cast<std::int64_t>(live.chat->size() + 1);
  expect(answered || state.n_messages == static_cast<std::int64_t>(before),
         "an answer is a message if something of it was drawn, and what it answers stays only then");
  if (d.hears) expect(answered == !live.heard.empty(), "an answer is what the callback has heard");
  if (status == MIXTRAL_OK && !d.result.is_null()) {
    expect(answered == (d.result->n_tokens > 0), "an answer of no tokens is no message");
    const bool whole = d.result->struct_size == sizeof(mixtral_generate_result);
    expect(!whole || (d.result->n_kept >= 0 && d.result->n_kept <= d.result->n_prompt), "no more is kept than asked");
  }
  if (status == MIXTRAL_CONTEXT_FULL) expect(tokens_of(live) == live.tokens, "what does not fit changes nothing");
  if (answered) {
    live.chat->push_back({MIXTRAL_ROLE_ASSISTANT, {}});
  } else {
    live.chat->resize(before);
  }
  live.tokens = tokens_of(live);
  live.n_computed = 0;  // the tokens were set: how many were kept is in the result only
  learn_computed(live);
}

void Player::chat_answer() {
  const SessionArgument s = any_session();
  Drawing d(bytes_, world_.vocab_size(), s.live);
  const bool ignores_end = !d.defaults && d.params->flags != 0;
  const bool users = has_chat(s.live) && !s.live->chat->empty() && s.live->chat->back().role == MIXTRAL_ROLE_USER;
  Terms terms{.live = s.live, .invalid = !has_chat(s.live) || d.invalid || ignores_end};
  if (has_chat(s.live) && s.live->busy == 0) {
    if (s.live->cancel == Live::Cancel::kYes) terms.want = MIXTRAL_CANCELLED;
    if (s.live->cancel == Live::Cancel::kNo && !users) terms.want = MIXTRAL_INVALID_ARGUMENT;
  }
  const mixtral_status status =
      call(Function::chat_answer, terms, [&] { return mixtral_chat_answer(s.handle, d.given(), d.result.get()); });
  d.result.check(status);
  if (!has_chat(s.live) || !s.live->alive || s.live->busy > 0) return;
  if (!terms.invalid) check_cancel(*s.live, status);
  check_drawn(*s.live, status, d, 0);
  after(s);
}

void Player::chat_say() {
  const SessionArgument s = any_session();
  const Text text(bytes_);
  Drawing d(bytes_, world_.vocab_size(), s.live);
  const bool ignores_end = !d.defaults && d.params->flags != 0;
  Terms terms{.live = s.live, .invalid = !has_chat(s.live) || d.invalid || ignores_end || text.invalid};
  if (has_chat(s.live) && s.live->busy == 0 && s.live->cancel == Live::Cancel::kYes) terms.want = MIXTRAL_CANCELLED;
  const mixtral_status status = call(Function::chat_say, terms, [&] {
    return mixtral_chat_say(s.handle, text.data, text.size, d.given(), d.result.get());
  });
  d.result.check(status);
  if (!has_chat(s.live) || !s.live->alive || s.live->busy > 0) return;
  if (!terms.invalid) check_cancel(*s.live, status);
  s.live->chat->push_back({MIXTRAL_ROLE_USER, std::string(text.data, text.invalid ? 0 : text.size)});
  check_drawn(*s.live, status, d, 1);
  after(s);
}

void Player::chat_message_text() {
  const SessionArgument s = any_session();
  const std::size_t index = bytes_.chance(16) ? kHuge - bytes_.below(2) : bytes_.below(6);
  Out<char> out(bytes_);
  const bool no_role = bytes_.chance(4), there = has_chat(s.live) && index < s.live->chat->size();
  std::int32_t role = -7;
  const mixtral_status status =
      call(Function::chat_message_text, {.live = s.live, .invalid = !there || !out.valid()}, [&] {
        return mixtral_chat_message_text(s.handle, index, no_role ? nullptr : &role, out.data(), out.capacity(),
                                         out.size());
      });
  out.check(status);
  if (status != MIXTRAL_OK) return expect(role == -7, "a role is told with its text only");
  const Said& said = (*s.live->chat)[index];
  expect(no_role || role == said.role, "a message keeps its role");
  const auto items = out.items();
  if (said.text) expect(std::string(items.begin(), items.end()) == *said.text, "a message keeps its text");
}

void Player::chat_message_tokens() {
  const SessionArgument s = any_session();
  const std::size_t index = bytes_.chance(16) ? kHuge - bytes_.below(2) : bytes_.below(6);
  Out<std::int32_t> out(bytes_);
  const bool there = has_chat(s.live) && index < s.live->chat->size();
  const mixtral_status status =
      call(Function::chat_message_tokens, {.live = s.live, .invalid = !there || !out.valid()},
           [&] { return mixtral_chat_message_tokens(s.handle, index, out.data(), out.capacity(), out.size()); });
  out.check(status);
}

void Player::chat_keep() {
  const SessionArgument s = any_session();
  std::size_t n = bytes_.chance(16) ? kHuge - bytes_.below(2) : bytes_.below(8);
  if (has_chat(s.live) && bytes_.chance(2)) n = std::min(n, s.live->chat->size());
  const bool too_many = has_chat(s.live) && n > s.live->chat->size();
  const mixtral_status status =
      call(Function::chat_keep, {.live = s.live, .invalid = !has_chat(s.live) || too_many, .want = MIXTRAL_OK},
           [&] { return mixtral_chat_keep(s.handle, n); });
  if (status == MIXTRAL_OK) s.live->chat->resize(n, {0, {}});
  after(s);
}

}  // namespace mixtral::fuzz
