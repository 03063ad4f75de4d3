// Plays one sequence: keeps account of what each session must hold, and answers the callbacks.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bytes.hpp"
#include "capi_arguments.hpp"
#include "capi_sequence.hpp"
#include "capi_world.hpp"
#include "support/allocations.hpp"

namespace mixtral::fuzz {

class Player;

struct Said {  // a message of a conversation
  std::int32_t role;
  std::optional<std::string> text;  // an answer's is not known
};

// What is known about a session.
struct Live {
  Player* player;
  mixtral_session* handle;
  bool tokenizer, records, head;
  std::int64_t max_positions;
  std::int32_t kv_type = MIXTRAL_KV_BF16;
  std::vector<std::int32_t> tokens = {};
  std::size_t n_computed = 0;
  enum class Cancel { kNo, kYes, kMaybe } cancel = Cancel::kNo;  // waits for the next call that computes
  bool alive = true;
  int busy = 0;                          // calls that are running on it
  std::vector<std::int32_t> heard = {};  // by the token callback of the running generate
  std::optional<std::vector<Said>> chat = {};
};

struct LiveCtx {
  mixtral_ctx* handle;
  bool tokenizer, shared, head = true;
  bool alive = true;
};

struct Frame {  // a call that is running
  Live* live = nullptr;
  bool threw = false, said_stop = false, cancelled = false;
};

struct CtxArgument {
  mixtral_ctx* handle = nullptr;
  LiveCtx* ctx = nullptr;  // nullptr: the handle is wrong
};
struct SessionArgument {
  mixtral_session* handle = nullptr;
  Live* live = nullptr;  // nullptr: the handle is wrong
};

// The arguments of a call that draws tokens.
struct Drawing {
  Drawing(Bytes& bytes, std::size_t vocab_size, Live* live);
  Drawing(const Drawing&) = delete;  // params look at the other members
  Drawing& operator=(const Drawing&) = delete;
  const mixtral_generate_params* given() { return defaults ? nullptr : params.get(); }

  Struct<mixtral_generate_params> params;
  std::vector<mixtral_string> stops;
  Ids stop_tokens;
  OutStruct<mixtral_generate_result, offsetof(mixtral_generate_result, n_prompt)> result;
  bool defaults = false;  // NULL for params
  bool hears = false;     // with a token callback
  bool invalid = false;   // what is told before the work begins
  bool negative = false;  // max_tokens, which is told by it
};

class Player {
 public:
  Player(const World& world, Bytes bytes, Counts& counts);
  ~Player();
  Player(const Player&) = delete;
  Player& operator=(const Player&) = delete;

  void play();

  // What the callbacks of the library come to.
  std::int32_t on_logits(Live& own, float* logits, std::size_t n);
  std::int32_t on_token(Live& own, std::int32_t token, const char* text, std::size_t size);
  void on_run(std::int32_t n_jobs, mixtral_job_fn job, void* state);
  void on_log();

 private:
  static mixtral_run_fn run_callback() noexcept;
  static mixtral_log_fn log_callback() noexcept;
  using Call = void (Player::*)();
  static const std::vector<Call>& calls();

  // ---- handles
  CtxArgument any_ctx();
  SessionArgument any_session();
  std::vector<Live*> live_sessions() const;
  std::vector<LiveCtx*> live_ctxs() const;

  // ---- a call and what is checked of it
  struct Terms {
    Live* live = nullptr;
    bool invalid = false;                     // the arguments are certainly wrong
    std::optional<mixtral_status> want = {};  // with good arguments, when nothing interferes
    bool always = false;                      // may be called while another call is using the session
  };
  template <class F>
  mixtral_status call(Function function, const Terms& terms, F&& action);
  void count(Function function, mixtral_status status = MIXTRAL_OK);
  void check_status(Function function, const Terms& terms, mixtral_status status, bool was_busy, bool out_of_memory);
  void check_state(const Live& live) const;
  void check_cancel(Live& live, mixtral_status status);
  void learn_computed(Live& live);
  std::vector<std::int32_t> tokens_of(const Live& live) const;
  void after(const SessionArgument& s) const;
  Live& add_session(Live live);
  void finish(Live& live);
  std::int32_t misbehave(Live* own);
  void cancel(Live& live);
  void destroy(Live& live);
  void check_drawn(Live& live, mixtral_status status, Drawing& d, std::size_t asked);
  void one_call();
  void open_session();

  // ---- the calls
  void constants();
  void init_structs();
  void ctx_create();
  void ctx_destroy();
  void ctx_info();
  void ctx_routing_counts();
  void ctx_reset_routing_counts();
  void tokenize();
  void detokenize();
  void token_bytes();
  void token_is_eos();
  void chat_tokens();
  void chat_begin();
  void chat_add();
  void chat_answer();
  void chat_say();
  void chat_message_text();
  void chat_message_tokens();
  void chat_keep();
  void hidden();
  void session_create();
  void session_destroy();
  void session_info();
  void session_feed();
  void session_set_tokens();
  void session_tokens();
  void session_eval();
  void session_logits();
  void session_set_sampler();
  void session_set_logits_callback();
  void session_sample();
  void session_step();
  void session_cancel();
  void session_clear_cancel();
  void session_error();
  void session_reset();
  void session_fork();
  void session_truncate();
  void session_generate();
  void session_routes();
  void session_reset_routes();
  void choose_run_mode();
  void choose_failing_allocation();

  const World& world_;
  Bytes bytes_;
  Counts& counts_;
  std::vector<std::unique_ptr<LiveCtx>> ctxs_;   // all of this sequence, the destroyed ones too
  std::vector<std::unique_ptr<Live>> sessions_;  // the same: callbacks may still come for a destroyed one
  std::vector<Frame> frames_;                    // calls that are running, the innermost last
  std::size_t n_calls_ = 0, run_mode_ = 0;
  int running_ = 0;  // host executor callbacks that are running
  bool quiet_ = false, armed_ = false;
  std::optional<std::size_t> fail_at_;  // the allocation of the next outermost call that fails
  Frame last_{};                        // the call that ended last
};

template <class F>
mixtral_status Player::call(Function function, const Terms& terms, F&& action) {
  Live* const live = terms.live;
  const bool was_busy = live != nullptr && live->busy > 0;
  frames_.push_back({live});
  if (live != nullptr) ++live->busy;
  mixtral_status status = MIXTRAL_OK;
  bool out_of_memory = false;
  if (frames_.size() == 1 && fail_at_) {
    const std::size_t nth = *std::exchange(fail_at_, {}), before = test::allocations();
    armed_ = true;
    {
      const test::FailingAllocation failing(nth);
      status = action();
    }
    armed_ = false;
    out_of_memory = test::allocations() > before + nth;
  } else {
    status = action();
  }
  last_ = frames_.back();
  frames_.pop_back();
  if (live != nullptr) --live->busy;
  count(function, status);
  check_status(function, terms, status, was_busy, out_of_memory);
  return status;
}

}  // namespace mixtral::fuzz
