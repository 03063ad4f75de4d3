#include "capi_player.hpp"

#include <cstring>
#include <stdexcept>
#include <thread>

#include "expect.hpp"

namespace mixtral::fuzz {
namespace {

constexpr std::size_t kMostCalls = 120, kMostDepth = 4;

// The sequence that is played now: contexts are shared by all of them.
Player* current = nullptr;

void run(void*, std::int32_t n_jobs, mixtral_job_fn job, void* state) {
  if (current != nullptr) return current->on_run(n_jobs, job, state);
  for (std::int32_t i = 0; i < n_jobs; ++i) job(state);
}
void log(void*, std::int32_t, const char* text, std::size_t size) {
  expect(text != nullptr && size > 0 && std::memchr(text, '\n', size) == nullptr, "a log message is one line");
  if (current != nullptr) current->on_log();
}

}  // namespace

void play(std::span<const std::uint8_t> bytes, Counts& counts) {
  static const World world(run, log, nullptr);
  Player player(world, Bytes(bytes.data(), bytes.size()), counts);
  player.play();
}

Player::Player(const World& world, Bytes bytes, Counts& counts) : world_(world), bytes_(bytes), counts_(counts) {
  for (mixtral_ctx* ctx : world.ctxs()) {
    ctxs_.push_back(std::make_unique<LiveCtx>(LiveCtx{ctx, world.has_tokenizer(ctx), true, world.has_head(ctx)}));
  }
  frames_.reserve(2 * kMostDepth);
  current = this;
}
Player::~Player() { current = nullptr; }

mixtral_run_fn Player::run_callback() noexcept { return run; }
mixtral_log_fn Player::log_callback() noexcept { return log; }

void Player::play() {
  while (!bytes_.empty() && n_calls_ < kMostCalls) {
    if (live_sessions().empty()) open_session();
    one_call();
  }
  quiet_ = true;
  fail_at_.reset();
  const std::vector<Live*> live = live_sessions();
  for (Live* session : live) finish(*session);
  // Some sessions end before their ctx, some after it.
  for (std::size_t i = 0; i < live.size() / 2; ++i) destroy(*live[i]);
  for (const auto& ctx : ctxs_) {
    if (ctx->alive && !ctx->shared) mixtral_ctx_destroy(ctx->handle);
  }
  for (std::size_t i = live.size() / 2; i < live.size(); ++i) destroy(*live[i]);
}

void Player::one_call() {
  if (++n_calls_ <= kMostCalls) (this->*bytes_.pick(calls()))();
}

// Most calls are about a session.
void Player::open_session() {
  const LiveCtx& ctx = *bytes_.pick(live_ctxs());
  mixtral_session_params params;
  expect(mixtral_session_params_init(&params, sizeof params) == MIXTRAL_OK, "the defaults can be had");
  params.flags = static_cast<std::uint32_t>(bytes_.below(2));
  mixtral_session* made = nullptr;
  expect(mixtral_session_create(ctx.handle, &params, &made) == MIXTRAL_OK, "a session can be made");
  Live& live = add_session({.player = this,
                            .handle = made,
                            .tokenizer = ctx.tokenizer,
                            .records = params.flags == MIXTRAL_SESSION_RECORD_ROUTES,
                            .head = ctx.head,
                            .max_positions = 40});
  if (!ctx.tokenizer || bytes_.chance(2)) return;
  expect(mixtral_chat_begin(made, MIXTRAL_CHAT_AUTO, 0) == MIXTRAL_OK, "a conversation can be begun");
  live.chat.emplace();
}

// Whatever was done to a session, its tokens' logits are those of a session to which nothing was done.
void Player::finish(Live& live) {
  expect(mixtral_session_clear_cancel(live.handle) == MIXTRAL_OK, "a cancel can be forgotten");
  check_state(live);
  if (live.tokens.empty()) return;
  expect(mixtral_session_set_tokens(live.handle, live.tokens.data(), live.tokens.size(), nullptr) == MIXTRAL_OK,
         "a session takes its own tokens");
  const mixtral_status evaluated = mixtral_session_eval(live.handle);
  if (!live.head) return expect(evaluated == MIXTRAL_NOT_FOUND, "without a head there are no logits");
  if (evaluated != MIXTRAL_OK) broken(mixtral_last_error());
  std::vector<float> logits(world_.vocab_size());
  std::size_t n = 0;
  expect(mixtral_session_logits(live.handle, live.tokens.size() - 1, logits.data(), logits.size(), &n) == MIXTRAL_OK,
         "the last token has logits after an eval");
  expect(logits == world_.reference(live.tokens, live.kv_type),
         "the logits are those of an untouched session, to the bit");
}

// ---- handles ---------------------------------------------------------------------------------------------

std::vector<Live*> Player::live_sessions() const {
  std::vector<Live*> out;
  for (const auto& live : sessions_) {
    if (live->alive) out.push_back(live.get());
  }
  return out;
}

std::vector<LiveCtx*> Player::live_ctxs() const {
  std::vector<LiveCtx*> out;
  for (const auto& ctx : ctxs_) {
    if (ctx->alive) out.push_back(ctx.get());
  }
  return out;
}

CtxArgument Player::any_ctx() {
  const std::size_t choice = bytes_.below(24);
  const std::vector<Live*> sessions = live_sessions();
  if (choice == 0 || (choice == 1 && sessions.empty())) return {};
  if (choice == 1) return {reinterpret_cast<mixtral_ctx*>(bytes_.pick(sessions)->handle), nullptr};
  LiveCtx* const ctx = bytes_.pick(live_ctxs());
  return {ctx->handle, ctx};
}

SessionArgument Player::any_session() {
  const std::size_t choice = bytes_.below(24);
  const std::vector<Live*> sessions = live_sessions();
  if (choice == 0 || sessions.empty()) return {};
  if (choice == 1) return {reinterpret_cast<mixtral_session*>(bytes_.pick(live_ctxs())->handle), nullptr};
  Live* const live = bytes_.pick(sessions);
  return {live->handle, live};
}

Live& Player::add_session(Live live) {
  live.player = this;
  return *sessions_.emplace_back(std::make_unique<Live>(std::move(live)));
}

// ---- checks ----------------------------------------------------------------------------------------------

void Player::count(Function function, mixtral_status status) {
  const auto s = static_cast<std::size_t>(status);
  if (s < kStatuses) ++counts_[static_cast<std::size_t>(function)][s];
}

void Player::check_status(Function function, const Terms& terms, mixtral_status status, bool was_busy,
                          bool out_of_memory) {
  const FunctionInfo& info = kFunctions[static_cast<std::size_t>(function)];
  subject = info.name;
  const auto require = [&](bool kept, const char* promise) {
    if (kept) return;
    broken(std::string("returned ") + mixtral_status_text(status) + " (" + mixtral_last_error() + "), but " + promise);
  };
  require(status >= 0 && static_cast<std::size_t>(status) < kStatuses, "there is no such status");
  if (status == MIXTRAL_OUT_OF_MEMORY) {
    require(out_of_memory, "there was memory");
  } else {
    require((info.statuses >> status & 1u) != 0, "it may not, says the header");
  }
  if (status != MIXTRAL_OK) {
    const std::size_t length = std::strlen(mixtral_last_error());
    require(length > 0 && length < 1024, "the last error says nothing, or too much");
  }
  if (status == MIXTRAL_INTERNAL) require(last_.threw, "no callback threw");
  if (status == MIXTRAL_NOT_FOUND && terms.live != nullptr && function != Function::chat_begin) {
    require(!terms.live->head, "the model has a head");
  }
  if (status == MIXTRAL_OUT_OF_MEMORY) return;
  if (was_busy && !terms.always) return require(status == MIXTRAL_BUSY, "another call is using the session");
  if (status == MIXTRAL_BUSY) return require(running_ > 0, "no other call is using the session");
  if (terms.invalid) return require(status == MIXTRAL_INVALID_ARGUMENT, "an argument is wrong");
  if (terms.want && !out_of_memory && running_ == 0 && !last_.threw) {
    require(status == *terms.want, "it should have given another status");
  }
}

std::vector<std::int32_t> Player::tokens_of(const Live& live) const {
  std::vector<std::int32_t> tokens(64);
  std::size_t n = 0;
  expect(mixtral_session_tokens(live.handle, tokens.data(), tokens.size(), &n) == MIXTRAL_OK,
         "a session tells its tokens");
  tokens.resize(n);
  return tokens;
}

// A session is as it should be.
void Player::check_state(const Live& live) const {
  mixtral_session_state state{};
  state.struct_size = sizeof state;
  expect(mixtral_session_info(live.handle, &state) == MIXTRAL_OK, "a session says how far it is");
  expect(state.n_computed <= state.n_tokens && state.n_tokens <= state.max_positions, "computed <= tokens <= room");
  expect(state.max_positions == live.max_positions, "the room of a session stays");
  expect((state.flags == MIXTRAL_SESSION_RECORD_ROUTES) == live.records, "the flags of a session stay");
  expect(state.kv_bytes >= 0 && (state.n_computed == 0 || state.kv_bytes > 0), "keys and values take memory");
  const auto n_messages = live.chat ? static_cast<std::int64_t>(live.chat->size()) : -1;
  expect(state.n_messages == n_messages, "a conversation has the messages that it should");
  expect(tokens_of(live) == live.tokens,
         "a session holds the tokens that it was given, and after an error those before");
  expect(state.n_computed == static_cast<std::int64_t>(live.n_computed), "as many tokens are computed as should be");
}

void Player::after(const SessionArgument& s) const {
  if (s.live != nullptr && s.live->alive && s.live->busy == 0) check_state(*s.live);
}

// After a call that looks whether it was cancelled.
void Player::check_cancel(Live& live, mixtral_status status) {
  using enum Live::Cancel;
  if (status == MIXTRAL_CANCELLED) {
    expect(live.cancel != kNo || last_.cancelled || last_.said_stop, "a call is cancelled only if somebody said so");
    live.cancel = last_.cancelled || last_.said_stop ? kMaybe : kNo;
  } else if (last_.cancelled) {
    live.cancel = kMaybe;  // perhaps it came too late
  } else if (status == MIXTRAL_OK) {
    expect(live.cancel != kYes, "a cancel ends the next call that computes");
    live.cancel = kNo;
  }
}

// How much of the tokens is computed, where the header leaves it open.
void Player::learn_computed(Live& live) {
  mixtral_session_state state{};
  state.struct_size = sizeof state;
  expect(mixtral_session_info(live.handle, &state) == MIXTRAL_OK, "a session says how far it is");
  const auto n = static_cast<std::size_t>(state.n_computed);
  expect(n >= live.n_computed && n <= live.tokens.size(), "nothing that was computed is lost");
  live.n_computed = n;
}

// ---- callbacks -------------------------------------------------------------------------------------------

// What a callback does beside its work: `own` is the session whose call it belongs to.
std::int32_t Player::misbehave(Live* own) {
  if (quiet_ || armed_) return 0;
  switch (bytes_.below(12)) {
    case 0: frames_.back().said_stop = true; return 7;
    case 1: frames_.back().threw = true; throw std::runtime_error("a callback's exception");
    case 2: frames_.back().threw = true; throw 1;
    case 3:
      if (own != nullptr && own->alive) cancel(*own);
      return 0;
    case 4:
      if (own != nullptr && own->alive && bytes_.chance(2)) destroy(*own);
      return 0;
    case 5:
    case 6:
      if (frames_.size() < kMostDepth) one_call();
      return 0;
    default: return 0;
  }
}

std::int32_t Player::on_logits(Live& own, float* logits, std::size_t n) {
  expect(n == world_.vocab_size() && logits != nullptr, "the logits callback sees a row");
  if (quiet_ || armed_) return 0;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  switch (bytes_.below(8)) {
    case 0: std::fill_n(logits, n, -kInfinity); break;
    case 1: std::fill_n(logits, n / 2, kInfinity); break;
    case 2: std::fill_n(logits, n, std::numeric_limits<float>::quiet_NaN()); break;
    case 3: logits[bytes_.byte()] = -kInfinity; break;
    default: break;
  }
  return misbehave(&own);
}

std::int32_t Player::on_token(Live& own, std::int32_t token, const char* text, std::size_t size) {
  expect(token >= -1 && token < static_cast<std::int32_t>(world_.vocab_size()), "the token callback sees ids");
  expect(text != nullptr || size == 0, "the token callback sees a text");
  if (token >= 0) own.heard.push_back(token);
  return misbehave(&own);
}

void Player::on_log() {
  if (!frames_.empty()) misbehave(nullptr);
}

void Player::on_run(std::int32_t n_jobs, mixtral_job_fn job, void* state) {
  expect(n_jobs > 0 && job != nullptr, "a host is asked for jobs only if there are some");
  const auto run_here = [&](std::int32_t n) {
    for (std::int32_t i = 0; i < n; ++i) job(state);
  };
  if (quiet_ || armed_ || frames_.empty()) return run_here(n_jobs);
  switch (run_mode_) {
    case 1: return;  // not at all
    case 2: return run_here(1);
    case 3: return run_here(n_jobs + 3);
    case 4: {
      std::vector<std::thread> threads;
      for (std::int32_t i = 0; i < n_jobs; ++i) threads.emplace_back(job, state);
      for (std::thread& thread : threads) thread.join();
      run_mode_ = 0;  // once: threads take long to make
      return;
    }
    case 5: {  // calls back
      run_mode_ = 0;
      if (frames_.size() >= kMostDepth) return run_here(n_jobs);
      ++running_;
      one_call();
      --running_;
      return run_here(n_jobs);
    }
    case 6:
      run_mode_ = 0;
      run_here(1);
      frames_.back().threw = true;
      throw std::runtime_error("the host's exception");
    default: run_here(n_jobs);
  }
}

}  // namespace mixtral::fuzz
