// C++17 over the C ABI of mixtral.h: handles that free themselves, strings, vectors, std::function, exceptions. Header
// only, and only C reaches the library: the program may have another compiler or standard library than it. Threads,
// states after errors and the rest: as mixtral.h says; get() gives the handle for what is not wrapped.
//
// An exception that leaves a callback does not cross the library: it ends the call (the log and the host's executor
// cannot end one; there the call goes on), and the wrapper throws it again where the call was made.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixtral.h"

namespace mixtral::c {

// what() is the library's text, with names and numbers.
class Error : public std::runtime_error {
 public:
  Error(mixtral_status status, const std::string& text) : std::runtime_error(text), status_(status) {}
  mixtral_status status() const noexcept { return status_; }

 private:
  mixtral_status status_;
};

using Tokens = std::vector<std::int32_t>;

struct Message {
  std::int32_t role;
  std::string text;
  Tokens tokens = {};  // an assistant's answer as it was drawn, used instead of `text`
};

namespace detail {

// Callbacks run on the thread that made the call, so one place for each thread holds their exception.
inline std::exception_ptr& caught() {
  thread_local std::exception_ptr error;
  return error;
}

inline void check(mixtral_status status) {
  if (caught()) std::rethrow_exception(std::exchange(caught(), nullptr));
  if (status != MIXTRAL_OK) throw Error(status, mixtral_last_error());
}

// f(), or `failed` if it throws.
template <class R, class F>
R shielded(R failed, const F& f) noexcept {
  try {
    return f();
  } catch (...) {
    caught() = std::current_exception();
    return failed;
  }
}

// The answer of a function that ends with (out, capacity, n); `guess` elements are tried first.
template <class Container, class Function, class... Args>
Container filled(std::size_t guess, Function function, Args... args) {
  Container out(guess, {});
  std::size_t n = 0;
  mixtral_status status = function(args..., out.data(), out.size(), &n);
  if (status == MIXTRAL_BUFFER_TOO_SMALL) {
    out.resize(n);
    status = function(args..., out.data(), out.size(), &n);
  }
  check(status);
  out.resize(n);
  return out;
}

template <class T>
T defaults(mixtral_status (*init)(T*, std::size_t)) {
  T params{};
  check(init(&params, sizeof params));
  return params;
}

template <class T, class Handle>
T described(mixtral_status (*describe)(Handle*, T*), Handle* handle) {
  T out{};
  out.struct_size = sizeof out;
  check(describe(handle, &out));
  return out;
}

inline std::vector<mixtral_chat_message> views(const std::vector<Message>& messages) {
  std::vector<mixtral_chat_message> out;
  for (const Message& m : messages) {
    out.push_back({sizeof(mixtral_chat_message), m.role, m.text.data(), m.text.size(),
                   m.tokens.empty() ? nullptr : m.tokens.data(), m.tokens.size()});
  }
  return out;
}

}  // namespace detail

struct ContextOptions {
  std::int32_t isa = MIXTRAL_ISA_BEST, executor = MIXTRAL_EXECUTOR_THREADS, n_threads = 0;
  std::int32_t bf16_products = MIXTRAL_BF16_FLOAT32;
  bool resident = false;
  std::int32_t import_weights = MIXTRAL_IMPORT_PACKED;
  std::int32_t head = MIXTRAL_HEAD_REQUIRED;
  std::function<void(std::int32_t level, std::string_view text)> log;
  // MIXTRAL_EXECUTOR_HOST: calls `job` n_jobs times, on several threads, and returns when all calls have.
  std::function<void(std::int32_t n_jobs, const std::function<void()>& job)> run;
};

// A model, its tokenizer and threads; usable from several threads. Sessions keep alive what they need of it.
class Context {
 public:
  explicit Context(std::string_view path, ContextOptions options = {})
      : options_(std::make_shared<ContextOptions>(std::move(options))) {
    auto params = detail::defaults(mixtral_params_init);
    params.isa = options_->isa;
    params.bf16_products = options_->bf16_products;
    params.resident = options_->resident ? 1 : 0;
    params.import_weights = options_->import_weights;
    params.head = options_->head;
    params.executor = options_->executor;
    params.n_threads = options_->n_threads;
    params.log = options_->log ? on_log : nullptr;
    params.run = options_->run ? on_run : nullptr;
    params.log_user = params.run_user = options_.get();
    mixtral_ctx* ctx = nullptr;
    const mixtral_status status = mixtral_ctx_create(path.data(), path.size(), &params, &ctx);
    ctx_.reset(ctx);
    detail::check(status);
  }

  mixtral_info info() const { return detail::described<mixtral_info, const mixtral_ctx>(mixtral_ctx_info, get()); }
  Tokens tokenize(std::string_view text, std::uint32_t flags = MIXTRAL_TOKENIZE_BOS) const {
    return detail::filled<Tokens>(text.size() / 2 + 8, mixtral_tokenize, get(), text.data(), text.size(), flags);
  }
  std::string detokenize(const Tokens& tokens) const {
    return detail::filled<std::string>(8 * tokens.size(), mixtral_detokenize, get(), tokens.data(), tokens.size());
  }
  std::string token_bytes(std::int32_t token) const {
    return detail::filled<std::string>(16, mixtral_token_bytes, get(), token);
  }
  bool is_eos(std::int32_t token) const noexcept { return mixtral_token_is_eos(get(), token) != 0; }
  Tokens chat_tokens(const std::vector<Message>& messages, std::int32_t style = MIXTRAL_CHAT_AUTO,
                     std::uint32_t flags = 0) const {
    const auto views = detail::views(messages);
    return detail::filled<Tokens>(256, mixtral_chat_tokens, get(), style, flags, views.data(), views.size());
  }
  // A text as a vector of length 1, or with MIXTRAL_POOL_NONE [tokens, dim], row-major.
  std::vector<float> hidden(const Tokens& tokens, std::int32_t pooling = MIXTRAL_POOL_MEAN,
                            std::int32_t layer = MIXTRAL_HIDDEN_FINAL) const {
    return detail::filled<std::vector<float>>(4096, mixtral_hidden, get(), tokens.data(), tokens.size(), layer,
                                              pooling);
  }
  // [n_layers, n_experts], row-major.
  std::vector<std::uint64_t> routing_counts() const {
    return detail::filled<std::vector<std::uint64_t>>(256, mixtral_ctx_routing_counts, get());
  }
  void reset_routing_counts() const { detail::check(mixtral_ctx_reset_routing_counts(get())); }

  mixtral_ctx* get() const noexcept { return ctx_.get(); }

 private:
  friend class Session;
  struct Destroy {
    void operator()(mixtral_ctx* ctx) const noexcept { mixtral_ctx_destroy(ctx); }
  };

  static void on_log(void* user, std::int32_t level, const char* text, std::size_t size) {
    detail::shielded(0, [&] { return static_cast<ContextOptions*>(user)->log(level, {text, size}), 0; });
  }
  static void on_run(void* user, std::int32_t n_jobs, mixtral_job_fn job, void* state) {
    // If it throws, the library does the work that is left.
    detail::shielded(0, [&] { return static_cast<ContextOptions*>(user)->run(n_jobs, [=] { job(state); }), 0; });
  }

  std::shared_ptr<ContextOptions> options_;  // the callbacks must outlive the handle and its sessions
  std::unique_ptr<mixtral_ctx, Destroy> ctx_;
};

struct GenerateOptions {
  std::int64_t max_tokens = 128;
  std::uint32_t flags = 0;  // MIXTRAL_GENERATE_*
  std::vector<std::string> stop_strings = {};
  Tokens stop_tokens = {};
  std::function<bool(std::int32_t token, std::string_view text)> on_token = {};  // false ends the generation
};

// One sequence of tokens, used by one thread at a time, and not destroyed while a call on it runs; cancel() may be
// called from any thread.
class Session {
 public:
  explicit Session(const Context& context,
                   const mixtral_session_params& params = detail::defaults(mixtral_session_params_init))
      : state_(std::make_unique<State>(context.options_)) {
    detail::check(mixtral_session_create(context.get(), &params, &state_->session));
  }
  Session fork() const {  // without the logits editor
    Session copy(std::make_unique<State>(state_->options));
    detail::check(mixtral_session_fork(get(), &copy.state_->session));
    return copy;
  }

  void feed(const Tokens& tokens, std::uint32_t flags = 0) { call(mixtral_session_feed, tokens, flags); }
  std::size_t set_tokens(const Tokens& tokens) {  // how many computed ones were kept
    std::size_t kept = 0;
    call(mixtral_session_set_tokens, tokens, &kept);
    return kept;
  }
  void truncate(std::size_t n_tokens) { detail::check(mixtral_session_truncate(get(), n_tokens)); }
  void reset() { detail::check(mixtral_session_reset(get())); }
  void cancel() const noexcept { mixtral_session_cancel(get()); }
  void clear_cancel() { detail::check(mixtral_session_clear_cancel(get())); }

  mixtral_session_state info() const { return detail::described(mixtral_session_info, get()); }
  Tokens tokens() const { return detail::filled<Tokens>(512, mixtral_session_tokens, get()); }

  void eval() { detail::check(mixtral_session_eval(get())); }
  std::vector<float> logits(std::size_t position) const {
    return detail::filled<std::vector<float>>(0, mixtral_session_logits, get(), position);
  }
  static mixtral_sampler_params sampler_defaults() { return detail::defaults(mixtral_sampler_params_init); }
  void set_sampler(const mixtral_sampler_params& params) { detail::check(mixtral_session_set_sampler(get(), &params)); }
  using EditLogits = std::function<void(float* logits, std::size_t n_logits)>;
  void set_logits_editor(EditLogits edit) {  // empty: none
    auto next = edit ? std::make_unique<EditLogits>(std::move(edit)) : nullptr;
    detail::check(mixtral_session_set_logits_callback(get(), next ? on_logits : nullptr, next.get()));
    state_->edit = std::move(next);
  }
  std::int32_t sample() { return drawn(mixtral_session_sample); }
  std::int32_t step() { return drawn(mixtral_session_step); }

  mixtral_generate_result generate(const GenerateOptions& options) {
    return drawing(options,
                   [&](const auto* params, auto* result) { return mixtral_session_generate(get(), params, result); });
  }

  // A conversation: mixtral_chat_begin(), _add(), _say(), _answer(), _message_text() and _keep().
  void begin_chat(std::int32_t style = MIXTRAL_CHAT_AUTO, std::uint32_t flags = 0) {
    detail::check(mixtral_chat_begin(get(), style, flags));
  }
  void add(const std::vector<Message>& messages) {
    const auto views = detail::views(messages);
    detail::check(mixtral_chat_add(get(), views.data(), views.size()));
  }
  mixtral_generate_result say(std::string_view text, const GenerateOptions& options = {}) {
    return drawing(options, [&](const auto* params, auto* result) {
      return mixtral_chat_say(get(), text.data(), text.size(), params, result);
    });
  }
  mixtral_generate_result answer(const GenerateOptions& options = {}) {
    return drawing(options,
                   [&](const auto* params, auto* result) { return mixtral_chat_answer(get(), params, result); });
  }
  std::vector<Message> messages() const {  // empty, too, if there is no conversation
    std::vector<Message> out;
    const std::int64_t n = info().n_messages;
    for (std::int64_t i = 0; i < n; ++i) {
      const auto at = static_cast<std::size_t>(i);
      Message message{};
      message.text = detail::filled<std::string>(256, mixtral_chat_message_text, get(), at, &message.role);
      message.tokens = detail::filled<Tokens>(64, mixtral_chat_message_tokens, get(), at);
      out.push_back(std::move(message));
    }
    return out;
  }
  void keep_messages(std::size_t n) { detail::check(mixtral_chat_keep(get(), n)); }

  // [n_layers, n_experts_per_tok] of a computed token; needs MIXTRAL_SESSION_RECORD_ROUTES.
  Tokens routes(std::size_t position) const {
    const auto experts = [](mixtral_session* session, std::size_t at, std::int32_t* out, std::size_t capacity,
                            std::size_t* n) { return mixtral_session_routes(session, at, out, nullptr, capacity, n); };
    return detail::filled<Tokens>(64, experts, get(), position);
  }
  void reset_routes() { detail::check(mixtral_session_reset_routes(get())); }

  mixtral_session* get() const noexcept { return state_->session; }

 private:
  struct State {
    explicit State(std::shared_ptr<ContextOptions> context) : options(std::move(context)) {}
    State(const State&) = delete;
    State& operator=(const State&) = delete;
    ~State() { mixtral_session_destroy(session); }

    std::shared_ptr<ContextOptions> options;  // the context's callbacks
    std::unique_ptr<EditLogits> edit;
    mixtral_session* session = nullptr;
  };
  explicit Session(std::unique_ptr<State> state) : state_(std::move(state)) {}

  template <class Function, class Last>
  void call(Function function, const Tokens& tokens, Last last) {
    detail::check(function(get(), tokens.data(), tokens.size(), last));
  }
  // draw(params, result) with these options.
  template <class Draw>
  static mixtral_generate_result drawing(const GenerateOptions& options, const Draw& draw) {
    std::vector<mixtral_string> stops;
    for (const std::string& text : options.stop_strings) stops.push_back({text.data(), text.size()});
    auto params = detail::defaults(mixtral_generate_params_init);
    params.flags = options.flags;
    params.max_tokens = options.max_tokens;
    params.stop_strings = stops.data();
    params.n_stop_strings = stops.size();
    params.stop_tokens = options.stop_tokens.data();
    params.n_stop_tokens = options.stop_tokens.size();
    params.on_token = options.on_token ? on_token : nullptr;
    params.user = const_cast<GenerateOptions*>(&options);
    mixtral_generate_result result{};
    result.struct_size = sizeof result;
    detail::check(draw(&params, &result));
    return result;
  }
  std::int32_t drawn(mixtral_status (*draw)(mixtral_session*, std::int32_t*)) {
    std::int32_t token = -1;
    detail::check(draw(get(), &token));
    return token;
  }
  static std::int32_t on_logits(void* user, float* logits, std::size_t n) {
    return detail::shielded(1, [&] { return (*static_cast<EditLogits*>(user))(logits, n), 0; });
  }
  static std::int32_t on_token(void* user, std::int32_t token, const char* text, std::size_t size) {
    const auto& options = *static_cast<const GenerateOptions*>(user);
    return detail::shielded(1, [&] { return options.on_token(token, {text, size}) ? 0 : 1; });
  }

  std::unique_ptr<State> state_;
};

}  // namespace mixtral::c
