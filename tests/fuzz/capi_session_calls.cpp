// The functions of mixtral.h on a session, with arguments from the bytes, and what becomes of the session.
#include <cmath>

#include "capi_player.hpp"

namespace mixtral::fuzz {
namespace {

std::int32_t edit_logits(void* user, float* logits, std::size_t n) {
  Live& live = *static_cast<Live*>(user);
  return live.player->on_logits(live, logits, n);
}
bool begins_with(const std::vector<std::int32_t>& all, const std::vector<std::int32_t>& first) {
  return all.size() >= first.size() && std::equal(first.begin(), first.end(), all.begin());
}

}  // namespace

const std::vector<Player::Call>& Player::calls() {
  using P = Player;
  static const std::vector<Call> all = {
      &P::constants, &P::init_structs, &P::ctx_create, &P::ctx_destroy, &P::ctx_info, &P::ctx_routing_counts,
      &P::ctx_reset_routing_counts, &P::tokenize, &P::detokenize, &P::token_bytes, &P::token_is_eos, &P::chat_tokens,
      &P::chat_begin, &P::chat_add, &P::chat_answer, &P::chat_say, &P::chat_message_text, &P::chat_message_tokens,
      &P::chat_keep, &P::hidden, &P::session_create, &P::session_destroy, &P::session_info, &P::session_feed,
      &P::session_set_tokens, &P::session_tokens, &P::session_eval, &P::session_logits, &P::session_set_sampler,
      &P::session_set_logits_callback, &P::session_sample, &P::session_step, &P::session_cancel,
      &P::session_clear_cancel, &P::session_error, &P::session_reset, &P::session_fork, &P::session_truncate,
      &P::session_generate, &P::session_routes, &P::session_reset_routes, &P::choose_run_mode,
      &P::choose_failing_allocation,
      // once more, for they lead on
      &P::session_feed, &P::session_feed, &P::session_feed, &P::session_feed, &P::session_set_tokens, &P::session_eval,
      &P::session_eval, &P::session_step, &P::session_step, &P::session_step, &P::session_generate,
      &P::session_generate, &P::session_set_logits_callback, &P::session_create, &P::chat_begin, &P::chat_say,
      &P::chat_say, &P::chat_add, &P::chat_answer, &P::chat_message_text, &P::choose_failing_allocation,
      &P::choose_failing_allocation};
  return all;
}

void Player::choose_run_mode() { run_mode_ = bytes_.below(8); }
void Player::choose_failing_allocation() { fail_at_ = bytes_.below(4) == 0 ? bytes_.byte() : bytes_.below(12); }

// ---- a session -------------------------------------------------------------------------------------------

void Player::session_create() {
  const CtxArgument c = any_ctx();
  Struct<mixtral_session_params, offsetof(mixtral_session_params, kv_type)> params(bytes_, mixtral_session_params_init);
  params->flags = bytes_.pick(kFlags);
  params->max_positions =
      bytes_.pick(std::array<std::int64_t, 16>{0, 0, 0, 0, 0, 40, 40, 40, 1, 2, 20, 32, 33, 41, -1, kLargest});
  params->chunk = bytes_.pick(std::array<std::int64_t, 12>{256, 256, 1, 2, 3, 5, 31, 32, 33, kLargest, 0, -1});
  // A struct of the first version ends before these.
  const bool first_version = params->struct_size == offsetof(mixtral_session_params, kv_type);
  params->kv_type = bytes_.pick(std::array<std::int32_t, 8>{0, 0, 0, 1, 2, 2, 3, -1});
  params->reserved = bytes_.chance(32) ? 1 : 0;
  const bool good_kv = first_version || (params->kv_type >= 0 && params->kv_type <= 2 && params->reserved == 0);
  const bool defaults = bytes_.chance(8), no_place = bytes_.chance(24);
  const bool good = params.valid() && good_kv && params->flags <= 1 && params->max_positions >= 0 &&
                    params->max_positions <= 40 && params->chunk > 0;
  if (live_sessions().size() >= 6) return;
  mixtral_session* made = nullptr;
  const mixtral_status status = call(
      Function::session_create, {.invalid = c.ctx == nullptr || no_place || (!defaults && !good), .want = MIXTRAL_OK},
      [&] { return mixtral_session_create(c.handle, defaults ? nullptr : params.get(), no_place ? nullptr : &made); });
  expect((made != nullptr) == (status == MIXTRAL_OK), "a session is there if and only if it was made");
  if (made == nullptr) return;
  const std::int64_t room = defaults || params->max_positions == 0 ? 40 : params->max_positions;
  check_state(add_session({.player = this,
                           .handle = made,
                           .tokenizer = c.ctx->tokenizer,
                           .records = !defaults && params->flags == 1,
                           .head = c.ctx->head,
                           .max_positions = room,
                           .kv_type = defaults || first_version ? MIXTRAL_KV_BF16 : params->kv_type}));
}

void Player::destroy(Live& live) {
  for (Frame& frame : frames_) frame.cancelled = frame.cancelled || frame.live == &live;
  live.alive = false;
  call(Function::session_destroy, {.live = &live, .always = true}, [&] {
    mixtral_session_destroy(live.handle);
    return MIXTRAL_OK;
  });
}

void Player::session_destroy() {
  const SessionArgument s = any_session();
  if (s.live != nullptr) return destroy(*s.live);
  call(Function::session_destroy, {}, [&] {
    mixtral_session_destroy(s.handle);
    return MIXTRAL_OK;
  });
}

void Player::session_info() {
  const SessionArgument s = any_session();
  OutStruct<mixtral_session_state, offsetof(mixtral_session_state, kv_shared_bytes)> state(bytes_);
  state.check(call(Function::session_info,
                   {.live = s.live, .invalid = s.live == nullptr || !state.valid(), .want = MIXTRAL_OK},
                   [&] { return mixtral_session_info(s.handle, state.get()); }));
}

void Player::session_feed() {
  const SessionArgument s = any_session();
  const Ids ids(bytes_, world_.vocab_size());
  const std::uint32_t flags = bytes_.pick(kFlags);
  std::size_t n = ids.n;
  if (bytes_.chance(24)) n = bytes_.pick(std::array<std::size_t, 4>{1000, kHuge / 16, kHuge / 4, kHuge});
  Terms terms{.live = s.live, .invalid = s.live == nullptr || flags > 1 || (n > 0 && ids.data == nullptr)};
  const bool fits = s.live != nullptr && n <= static_cast<std::size_t>(s.live->max_positions) - s.live->tokens.size();
  const bool good = n == 0 || ids.valid;
  if (fits) terms.want = good ? MIXTRAL_OK : MIXTRAL_INVALID_ARGUMENT;
  if (n == ids.n && !fits && good) terms.want = MIXTRAL_CONTEXT_FULL;
  const mixtral_status status =
      call(Function::session_feed, terms, [&] { return mixtral_session_feed(s.handle, ids.data, n, flags); });
  if (status == MIXTRAL_OK) {
    expect(fits && good, "only good tokens are fed");
    s.live->tokens.insert(s.live->tokens.end(), ids.values.begin(),
                          ids.values.begin() + static_cast<std::ptrdiff_t>(n));
  }
  after(s);
}

void Player::session_set_tokens() {
  const SessionArgument s = any_session();
  std::vector<std::int32_t> first;
  if (s.live != nullptr) first = s.live->tokens;
  if (bytes_.chance(2)) first.resize(std::min(first.size(), bytes_.below(48)));
  const Ids ids(bytes_, world_.vocab_size(), first);
  std::size_t n = ids.n;
  if (bytes_.chance(24)) n = bytes_.pick(std::array<std::size_t, 4>{1000, kHuge / 16, kHuge / 4, kHuge});
  const bool no_kept = bytes_.chance(8);
  Terms terms{.live = s.live, .invalid = s.live == nullptr || (n > 0 && ids.data == nullptr)};
  const bool fits = s.live != nullptr && n <= static_cast<std::size_t>(s.live->max_positions);
  const bool good = n == 0 || ids.valid;
  if (fits) terms.want = good ? MIXTRAL_OK : MIXTRAL_INVALID_ARGUMENT;
  if (n == ids.n && !fits && good) terms.want = MIXTRAL_CONTEXT_FULL;
  constexpr std::size_t kUntouched = 12345;
  std::size_t kept = kUntouched;
  const mixtral_status status = call(Function::session_set_tokens, terms, [&] {
    return mixtral_session_set_tokens(s.handle, ids.data, n, no_kept ? nullptr : &kept);
  });
  if (status == MIXTRAL_OK) {
    expect(fits && good, "only good tokens are set");
    Live& live = *s.live;
    const auto computed = live.tokens.begin() + static_cast<std::ptrdiff_t>(live.n_computed);
    const std::vector<std::int32_t> now(ids.values.begin(), ids.values.begin() + static_cast<std::ptrdiff_t>(n));
    const auto same = static_cast<std::size_t>(
        std::mismatch(live.tokens.begin(), computed, now.begin(), now.end()).first - live.tokens.begin());
    live.tokens = now;
    live.n_computed = same;
    mixtral_session_state state{};
    state.struct_size = sizeof state;
    expect(mixtral_session_info(live.handle, &state) == MIXTRAL_OK, "a session says how far it is");
    if (same == now.size() && same > 0 && state.n_computed == static_cast<std::int64_t>(same) - 1) --live.n_computed;
    expect(no_kept || kept == live.n_computed, "what is the same from the start is kept");
  } else {
    expect(kept == kUntouched, "an error leaves the caller's number alone");
  }
  after(s);
}

void Player::session_tokens() {
  const SessionArgument s = any_session();
  Out<std::int32_t> out(bytes_);
  out.check(call(Function::session_tokens, {.live = s.live, .invalid = s.live == nullptr || !out.valid()},
                 [&] { return mixtral_session_tokens(s.handle, out.data(), out.capacity(), out.size()); }));
}

void Player::session_eval() {
  const SessionArgument s = any_session();
  Terms terms{.live = s.live, .invalid = s.live == nullptr};
  if (s.live != nullptr && s.live->cancel == Live::Cancel::kYes) terms.want = MIXTRAL_CANCELLED;
  if (s.live != nullptr && s.live->cancel == Live::Cancel::kNo && run_mode_ < 5) {
    terms.want = s.live->head || s.live->tokens.empty() ? MIXTRAL_OK : MIXTRAL_NOT_FOUND;
  }
  const mixtral_status status = call(Function::session_eval, terms, [&] { return mixtral_session_eval(s.handle); });
  if (s.live != nullptr && s.live->alive && s.live->busy == 0) {
    check_cancel(*s.live, status);
    if (status == MIXTRAL_OK) s.live->n_computed = s.live->tokens.size();
  }
  after(s);
}

void Player::session_logits() {
  const SessionArgument s = any_session();
  std::size_t position = bytes_.below(48);
  if (s.live != nullptr && s.live->n_computed > 0 && bytes_.chance(2)) position = s.live->n_computed - 1;
  if (bytes_.chance(16)) position = kHuge - bytes_.below(2);
  Out<float> out(bytes_);
  const bool invalid = s.live == nullptr || !out.valid() || position >= s.live->n_computed;
  const mixtral_status status = call(Function::session_logits, {.live = s.live, .invalid = invalid}, [&] {
    return mixtral_session_logits(s.handle, position, out.data(), out.capacity(), out.size());
  });
  out.check(status);
  if (status != MIXTRAL_OK) return;
  const std::vector<float> want = world_.reference(std::span(s.live->tokens).first(position + 1), s.live->kv_type);
  expect(std::equal(want.begin(), want.end(), out.items().begin(), out.items().end()),
         "the logits of a position are those of an untouched session");
}

void Player::session_set_sampler() {
  const SessionArgument s = any_session();
  Struct<mixtral_sampler_params> params(bytes_, mixtral_sampler_params_init);
  constexpr float kFloats[] = {0,
                               1,
                               1,
                               0.5f,
                               0.9f,
                               2,
                               1e-30f,
                               -1,
                               1e30f,
                               std::numeric_limits<float>::quiet_NaN(),
                               std::numeric_limits<float>::infinity()};
  if (!bytes_.chance(3)) {
    params->top_k =
        bytes_.pick(std::array<std::int32_t, 6>{0, 1, 5, -1, 1000, std::numeric_limits<std::int32_t>::max()});
    params->temperature = bytes_.pick(kFloats);
    params->top_p = bytes_.pick(kFloats);
    params->min_p = bytes_.pick(kFloats);
    params->repetition_penalty = bytes_.pick(kFloats);
    params->seed = bytes_.byte();
  }
  const bool defaults = bytes_.chance(8);
  call(Function::session_set_sampler, {.live = s.live, .invalid = s.live == nullptr || (!defaults && !params.valid())},
       [&] { return mixtral_session_set_sampler(s.handle, defaults ? nullptr : params.get()); });
  after(s);
}

void Player::session_set_logits_callback() {
  const SessionArgument s = any_session();
  const bool none = bytes_.chance(3);
  call(Function::session_set_logits_callback, {.live = s.live, .invalid = s.live == nullptr, .want = MIXTRAL_OK},
       [&] { return mixtral_session_set_logits_callback(s.handle, none ? nullptr : edit_logits, s.live); });
}

void Player::session_sample() {
  const SessionArgument s = any_session();
  const bool no_place = bytes_.chance(16);
  const bool nothing = s.live != nullptr && (s.live->n_computed == 0 || s.live->n_computed < s.live->tokens.size());
  std::int32_t token = -7;
  const mixtral_status status =
      call(Function::session_sample, {.live = s.live, .invalid = s.live == nullptr || no_place || nothing},
           [&] { return mixtral_session_sample(s.handle, no_place ? nullptr : &token); });
  expect(status == MIXTRAL_OK ? token >= 0 && token < static_cast<std::int32_t>(world_.vocab_size()) : token == -7,
         "a token is drawn from the vocabulary, or none");
  if (status == MIXTRAL_CANCELLED) expect(last_.said_stop, "a sample is cancelled only by its callback");
  after(s);
}

void Player::session_step() {
  const SessionArgument s = any_session();
  const bool no_place = bytes_.chance(16);
  Terms terms{.live = s.live, .invalid = s.live == nullptr || no_place};
  std::vector<std::int32_t> before;
  if (s.live != nullptr) {
    before = s.live->tokens;
    const bool full = static_cast<std::int64_t>(before.size()) == s.live->max_positions;
    if (s.live->cancel == Live::Cancel::kYes) terms.want = MIXTRAL_CANCELLED;
    if (s.live->cancel == Live::Cancel::kNo && full) terms.want = MIXTRAL_CONTEXT_FULL;
    if (s.live->cancel == Live::Cancel::kNo && before.empty()) terms.want = MIXTRAL_INVALID_ARGUMENT;
  }
  std::int32_t token = -7;
  const mixtral_status status =
      call(Function::session_step, terms, [&] { return mixtral_session_step(s.handle, no_place ? nullptr : &token); });
  expect((token == -7) == (status != MIXTRAL_OK), "a token is drawn if and only if the step succeeded");
  if (s.live == nullptr || !s.live->alive || s.live->busy > 0) return;
  Live& live = *s.live;
  if (!no_place) check_cancel(live, status);
  if (status == MIXTRAL_OK) {
    live.n_computed = before.size();
    live.tokens.push_back(token);
  } else if (!no_place && status != MIXTRAL_CONTEXT_FULL) {
    learn_computed(live);
    expect(live.n_computed == before.size() || live.tokens == before, "a step computes all or nothing");
  }
  after(s);
}

void Player::cancel(Live& live) {
  for (Frame& frame : frames_) frame.cancelled = frame.cancelled || frame.live == &live;
  live.cancel = live.busy > 0 ? Live::Cancel::kMaybe : Live::Cancel::kYes;
  call(Function::session_cancel, {.live = &live, .want = MIXTRAL_OK, .always = true},
       [&] { return mixtral_session_cancel(live.handle); });
}

void Player::session_cancel() {
  const SessionArgument s = any_session();
  if (s.live != nullptr) return cancel(*s.live);
  Terms terms{.invalid = s.handle != nullptr, .want = MIXTRAL_OK};
  call(Function::session_cancel, terms, [&] { return mixtral_session_cancel(s.handle); });
}

void Player::session_clear_cancel() {
  const SessionArgument s = any_session();
  const mixtral_status status =
      call(Function::session_clear_cancel, {.live = s.live, .invalid = s.live == nullptr, .want = MIXTRAL_OK},
           [&] { return mixtral_session_clear_cancel(s.handle); });
  if (status == MIXTRAL_OK) s.live->cancel = Live::Cancel::kNo;
}

void Player::session_error() {
  const SessionArgument s = any_session();
  Out<char> out(bytes_);
  out.check(call(Function::session_error, {.live = s.live, .invalid = s.live == nullptr || !out.valid()},
                 [&] { return mixtral_session_error(s.handle, out.data(), out.capacity(), out.size()); }));
}

void Player::session_reset() {
  const SessionArgument s = any_session();
  const mixtral_status status =
      call(Function::session_reset, {.live = s.live, .invalid = s.live == nullptr, .want = MIXTRAL_OK},
           [&] { return mixtral_session_reset(s.handle); });
  if (status == MIXTRAL_OK) {
    s.live->tokens.clear();
    s.live->n_computed = 0;
    s.live->cancel = Live::Cancel::kNo;
    s.live->chat.reset();
  }
  after(s);
}

void Player::session_fork() {
  const SessionArgument s = any_session();
  const bool no_place = bytes_.chance(16);
  if (live_sessions().size() >= 6) return;
  mixtral_session* made = nullptr;
  const mixtral_status status =
      call(Function::session_fork, {.live = s.live, .invalid = s.live == nullptr || no_place, .want = MIXTRAL_OK},
           [&] { return mixtral_session_fork(s.handle, no_place ? nullptr : &made); });
  expect((made != nullptr) == (status == MIXTRAL_OK), "a fork is there if and only if it was made");
  if (made != nullptr) {
    Live fork = *s.live;
    fork.handle = made;
    fork.cancel = Live::Cancel::kNo;
    check_state(add_session(std::move(fork)));
  }
  after(s);
}

void Player::session_truncate() {
  const SessionArgument s = any_session();
  std::size_t n = bytes_.chance(16) ? kHuge - bytes_.below(2) : bytes_.below(48);
  if (s.live != nullptr && bytes_.chance(2)) n = std::min(n, s.live->n_computed);
  const bool too_many = s.live != nullptr && n > s.live->n_computed;
  const mixtral_status status =
      call(Function::session_truncate, {.live = s.live, .invalid = s.live == nullptr || too_many, .want = MIXTRAL_OK},
           [&] { return mixtral_session_truncate(s.handle, n); });
  if (status == MIXTRAL_OK) {
    s.live->tokens.resize(n);
    s.live->n_computed = n;
  }
  after(s);
}

void Player::session_generate() {
  const SessionArgument s = any_session();
  Drawing d(bytes_, world_.vocab_size(), s.live);
  Terms terms{.live = s.live, .invalid = s.live == nullptr || d.invalid};
  std::vector<std::int32_t> before;
  if (s.live != nullptr && s.live->busy == 0) {
    before = s.live->tokens;
    if (s.live->cancel == Live::Cancel::kYes) terms.want = MIXTRAL_CANCELLED;
    const bool wrong = before.empty() || d.negative;
    if (s.live->cancel == Live::Cancel::kNo && wrong) terms.want = MIXTRAL_INVALID_ARGUMENT;
  }
  const mixtral_status status = call(Function::session_generate, terms,
                                     [&] { return mixtral_session_generate(s.handle, d.given(), d.result.get()); });
  d.result.check(status);
  if (s.live == nullptr || !s.live->alive || s.live->busy > 0) return;
  Live& live = *s.live;
  if (!terms.invalid) check_cancel(live, status);
  const std::vector<std::int32_t> now = tokens_of(live);
  expect(begins_with(now, before), "generate only adds tokens");
  const std::vector<std::int32_t> drawn(now.begin() + static_cast<std::ptrdiff_t>(before.size()), now.end());
  const bool full = static_cast<std::int64_t>(now.size()) == live.max_positions;
  if (d.hears) {
    expect(begins_with(live.heard, drawn) && live.heard.size() <= drawn.size() + (full ? 1 : 0),
           "a session holds the tokens that the callback has seen");
  }
  if (status == MIXTRAL_OK && !d.result.is_null()) {
    const auto n = static_cast<std::size_t>(d.result->n_tokens);
    expect(n == drawn.size() || (full && n == drawn.size() + 1), "generate says how many tokens it drew");
  }
  live.tokens = now;
  learn_computed(live);
  expect(now.size() - live.n_computed <= std::max<std::size_t>(before.size(), 1), "the drawn tokens are computed");
  after(s);
}

void Player::session_routes() {
  const SessionArgument s = any_session();
  const std::size_t position = bytes_.chance(16) ? kHuge - bytes_.below(2) : bytes_.below(48);
  Out<std::int32_t> out(bytes_);
  std::array<float, Out<std::int32_t>::kMost> weights{};
  const bool no_weights = bytes_.chance(4);
  const bool invalid = s.live == nullptr || !out.valid() || !s.live->records || position >= s.live->n_computed;
  const mixtral_status status = call(Function::session_routes, {.live = s.live, .invalid = invalid}, [&] {
    return mixtral_session_routes(s.handle, position, out.data(), no_weights ? nullptr : weights.data(), out.capacity(),
                                  out.size());
  });
  out.check(status);
  if (status != MIXTRAL_OK) return;
  expect(out.items().size() == 2 * 2, "a route names the experts of each layer");
  for (const std::int32_t expert : out.items()) expect(expert >= 0 && expert < 4, "a route names experts");
  if (no_weights) return;
  for (std::size_t layer = 0; layer < 2; ++layer) {
    const float a = weights[2 * layer], b = weights[2 * layer + 1];
    expect(a >= b && b >= 0 && std::abs(a + b - 1) < 1e-5f, "the weights of a layer add up to 1, the heaviest first");
  }
}

void Player::session_reset_routes() {
  const SessionArgument s = any_session();
  call(Function::session_reset_routes, {.live = s.live, .invalid = s.live == nullptr, .want = MIXTRAL_OK},
       [&] { return mixtral_session_reset_routes(s.handle); });
  after(s);
}

}  // namespace mixtral::fuzz
