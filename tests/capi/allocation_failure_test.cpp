// mixtral.h when memory runs out: every allocation of a call fails once.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "support/allocations.hpp"
#include "support/capi.hpp"
#include "support/consolidated_files.hpp"
#include "support/small_checkpoint.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using namespace mixtral::test;

namespace {

const std::vector<std::int32_t> kPrompt = {1, 6, 7, 3, 8, 6};

// The small checkpoint, on two threads, with its own threads.
class Fixture {
 public:
  Fixture() {
    write_small_checkpoint(dir_.path());
    ctx_ = open_ctx(params(), dir_.path());
  }
  mixtral_ctx* ctx() const { return ctx_.get(); }

  // A session that records routes, with the prompt queued, all of whose logits are wanted.
  CSession session() const {
    CSession s = make_session(ctx(), session_params(MIXTRAL_SESSION_RECORD_ROUTES));
    set_temperature(s.get(), 1, 7);
    feed(s.get(), kPrompt, MIXTRAL_FEED_LOGITS);
    return s;
  }

 private:
  TempDir dir_;
  Ctx ctx_;
};

std::size_t entries(const char* directory) {
  const std::filesystem::directory_iterator all(directory);
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

// What a call could leave behind: memory, open files, threads.
std::tuple<std::ptrdiff_t, std::size_t, std::size_t> held() {
  const std::size_t files = entries("/proc/self/fd"), threads = entries("/proc/self/task");
  return {live_allocations(), files, threads};
}

// The system lists a joined thread for a moment longer.
bool holds_again(const std::tuple<std::ptrdiff_t, std::size_t, std::size_t>& before) {
  for (int tries = 0; tries < 1000; ++tries) {
    if (held() == before) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

// One try of a call: made anew for each allocation that fails.
struct Try {
  std::function<mixtral_status()> call;
  std::function<bool()> unchanged = [] { return true; };  // after the failure
  std::function<bool()> right = [] { return true; };      // after the call was repeated
};

// Runs `make` and its call with allocation 0, 1, 2, ... failing until none fails; says how many there were.
void fail_each_allocation(const char* name, const std::function<void(const std::function<void(const Try&)>&)>& make) {
  bool done = false;
  std::size_t nth = 0, of_other_threads = 0;
  const auto attempt = [&](const Try& t) {
    const std::size_t before = allocations(), before_all = allocations_of_all_threads();
    mixtral_status status = MIXTRAL_OK;
    {
      const FailingAllocation failing(nth);
      status = t.call();
    }
    const std::size_t made = allocations() - before;
    of_other_threads += allocations_of_all_threads() - before_all - made;
    done = made <= nth;
    CHECK(status == (done ? MIXTRAL_OK : MIXTRAL_OUT_OF_MEMORY));
    if (!done) {
      CHECK(std::string_view(mixtral_last_error()).find("out of memory") == 0);
      CHECK(t.unchanged());
      ok(t.call());
    }
    CHECK(t.right());
  };
  make(attempt);  // whatever is made once in a process is made now
  done = false;
  for (nth = 0; !done; ++nth) {
    CAPTURE(nth);
    const auto before = held();
    make(attempt);
    CHECK(holds_again(before));
  }
  CHECK(nth > 1);
  MESSAGE(std::string(name), ": each of ", nth - 1, " allocations failed once");
  CHECK(of_other_threads == 0);  // the failures reach this thread only, and that is all there is
}

bool holds(mixtral_session* session, const std::vector<std::int32_t>& tokens, std::size_t computed) {
  return tokens_of(session) == tokens && state_of(session).n_computed == static_cast<std::int64_t>(computed);
}

std::vector<std::int32_t> route_of(mixtral_session* session, std::size_t position) {
  return read_all<std::int32_t>([&](std::int32_t* out, std::size_t capacity, std::size_t* n) {
    return mixtral_session_routes(session, position, out, nullptr, capacity, n);
  });
}

std::uint64_t choices_of(mixtral_ctx* ctx) {
  std::vector<std::uint64_t> counts(8);
  std::size_t n = 0;
  ok(mixtral_ctx_routing_counts(ctx, counts.data(), counts.size(), &n));
  std::uint64_t sum = 0;
  for (const std::uint64_t count : counts) sum += count;
  return sum;
}

std::vector<std::int32_t> with(std::vector<std::int32_t> tokens, std::initializer_list<std::int32_t> more) {
  tokens.insert(tokens.end(), more);
  return tokens;
}

void open_each_way(const char* name, const std::filesystem::path& dir) {
  const std::string path = dir.string();
  fail_each_allocation(name, [&](const auto& attempt) {
    mixtral_params p = params();
    p.log = [](void*, std::int32_t, const char*, std::size_t) {};
    mixtral_ctx* made = nullptr;
    attempt({.call = [&] { return mixtral_ctx_create(path.data(), path.size(), &p, &made); },
             .unchanged = [&] { return made == nullptr; },
             .right = [&] { return made != nullptr; }});
    mixtral_ctx_destroy(made);
  });
}

}  // namespace

TEST_CASE("a ctx is made or not, whichever allocation fails") {
  const TempDir small, mistral, sharded_dir;
  write_small_checkpoint(small.path(), true);
  open_each_way("ctx create, tokenizer.model", small.path());
  const Files files = read_dir(golden_dir() / "malformed_hf/_base");
  write_dir(mistral.path(), consolidated(files));
  open_each_way("ctx create, params.json", mistral.path());
  Files shards = sharded(files, 2);
  write_dir(sharded_dir.path(), shards);
  open_each_way("ctx create, shards", sharded_dir.path());
}

TEST_CASE("a session is made or not, whichever allocation fails") {
  const Fixture f;
  fail_each_allocation("session create", [&](const auto& attempt) {
    mixtral_session* made = nullptr;
    attempt({.call = [&] { return mixtral_session_create(f.ctx(), nullptr, &made); },
             .unchanged = [&] { return made == nullptr; }});
    mixtral_session_destroy(made);
  });
  const CSession original = f.session();
  ok(mixtral_session_eval(original.get()));
  feed(original.get(), {8, 9});
  const auto want = logits_of(original.get(), 2);
  fail_each_allocation("session fork", [&](const auto& attempt) {
    mixtral_session* made = nullptr;
    attempt({.call = [&] { return mixtral_session_fork(original.get(), &made); },
             .unchanged =
                 [&] {
                   return made == nullptr && holds(original.get(), with(kPrompt, {8, 9}), 6);
                 },
             .right =
                 [&] {
                   return holds(made, with(kPrompt, {8, 9}), 6) && logits_of(made, 2) == want;
                 }});
    mixtral_session_destroy(made);
  });
}

TEST_CASE("tokens are all queued or none, whichever allocation fails") {
  const Fixture f;
  const auto all = with(kPrompt, {8, 9, 10});
  fail_each_allocation("session feed", [&](const auto& attempt) {
    const CSession s = make_session(f.ctx());
    attempt({.call = [&] { return mixtral_session_feed(s.get(), all.data(), all.size(), MIXTRAL_FEED_LOGITS); },
             .unchanged = [&] { return holds(s.get(), {}, 0); },
             .right = [&] { return holds(s.get(), all, 0); }});
  });
  const std::vector<std::int32_t> edited = {1, 6, 7, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9};
  fail_each_allocation("session set_tokens", [&](const auto& attempt) {
    const CSession s = f.session();
    ok(mixtral_session_eval(s.get()));
    std::size_t kept = 99;
    attempt({.call = [&] { return mixtral_session_set_tokens(s.get(), edited.data(), edited.size(), &kept); },
             .unchanged = [&] { return kept == 99 && holds(s.get(), kPrompt, 6); },
             .right = [&] { return kept == 3 && holds(s.get(), edited, 3); }});
  });
}

TEST_CASE("a step that runs out of memory can be repeated and gives what it would have given") {
  const Fixture f;
  const CSession reference = f.session();
  ok(mixtral_session_eval(reference.get()));
  const auto logits = logits_of(reference.get(), 5), early = logits_of(reference.get(), 2);
  const auto route = route_of(reference.get(), 5);
  std::int32_t token = -1;
  ok(mixtral_session_sample(reference.get(), &token));

  ok(mixtral_ctx_reset_routing_counts(f.ctx()));
  std::uint64_t evals = 0;
  fail_each_allocation("session eval", [&](const auto& attempt) {
    const CSession s = f.session();
    attempt({.call = [&] { return mixtral_session_eval(s.get()); },
             .unchanged = [&] { return holds(s.get(), kPrompt, 0) && choices_of(f.ctx()) == evals * 6 * 2 * 2; },
             .right =
                 [&] {
                   ++evals;
                   return holds(s.get(), kPrompt, 6) && logits_of(s.get(), 5) == logits &&
                          logits_of(s.get(), 2) == early && route_of(s.get(), 5) == route &&
                          choices_of(f.ctx()) == evals * 6 * 2 * 2;
                 }});
  });
  fail_each_allocation("session sample", [&](const auto& attempt) {
    const CSession s = f.session();
    ok(mixtral_session_eval(s.get()));
    std::int32_t drawn = -1;
    attempt({.call = [&] { return mixtral_session_sample(s.get(), &drawn); },
             .unchanged = [&] { return drawn == -1 && holds(s.get(), kPrompt, 6); },
             .right = [&] { return drawn == token; }});
  });
  fail_each_allocation("session step", [&](const auto& attempt) {
    const CSession s = f.session();
    std::int32_t drawn = -1;
    attempt({.call = [&] { return mixtral_session_step(s.get(), &drawn); },
             .unchanged = [&] { return drawn == -1 && (holds(s.get(), kPrompt, 0) || holds(s.get(), kPrompt, 6)); },
             .right = [&] { return drawn == token && holds(s.get(), with(kPrompt, {token}), 6); }});
  });
}

TEST_CASE("messages are all added or none, and an answer is kept as far as it was drawn, whichever allocation fails") {
  const Fixture f;
  const auto begun = [&] {
    CSession s = make_session(f.ctx());
    set_temperature(s.get(), 1, 7);
    ok(mixtral_chat_begin(s.get(), MIXTRAL_CHAT_AUTO, 0));
    return s;
  };
  const auto messages = [](const CSession& s) { return state_of(s.get()).n_messages; };
  fail_each_allocation("chat begin", [&](const auto& attempt) {
    const CSession s = make_session(f.ctx());
    attempt({.call = [&] { return mixtral_chat_begin(s.get(), MIXTRAL_CHAT_AUTO, 0); },
             .unchanged = [&] { return messages(s) == -1; },
             .right = [&] { return messages(s) == 0; }});
  });
  const std::string text = "a text that is too long for a string without memory";
  const mixtral_chat_message turn[] = {{sizeof turn[0], MIXTRAL_ROLE_USER, text.data(), text.size(), nullptr, 0},
                                       {sizeof turn[0], MIXTRAL_ROLE_ASSISTANT, text.data(), text.size(), nullptr, 0}};
  fail_each_allocation("chat add", [&](const auto& attempt) {
    const CSession s = begun();
    attempt({.call = [&] { return mixtral_chat_add(s.get(), turn, 2); },
             .unchanged = [&] { return messages(s) == 0; },
             .right = [&] { return messages(s) == 2; }});
  });
  mixtral_generate_params params;
  ok(mixtral_generate_params_init(&params, sizeof params));
  params.max_tokens = 4;
  fail_each_allocation("chat say", [&](const auto& attempt) {
    const CSession s = begun();
    std::int64_t after_failure = 0;
    attempt({.call = [&] { return mixtral_chat_say(s.get(), "a", 1, &params, nullptr); },
             .unchanged =
                 [&] {
                   after_failure = messages(s);
                   return after_failure == 0 || after_failure == 2;
                 },
             .right = [&] { return messages(s) == after_failure + 2; }});
  });
}

TEST_CASE("where no memory is left for the text of an error, nothing is told and no cancel is lost") {
  const Fixture f;
  const CSession s = f.session();
  ok(mixtral_session_cancel(s.get()));
  const auto failing_first = [](auto&& call) {
    const FailingAllocation failing(0);
    return call();
  };
  CHECK(failing_first([&] { return mixtral_session_eval(s.get()); }) == MIXTRAL_OUT_OF_MEMORY);
  CHECK(mixtral_session_eval(s.get()) == MIXTRAL_CANCELLED);
  std::size_t n = 99;
  CHECK(failing_first([&] { return mixtral_session_tokens(s.get(), nullptr, 0, &n); }) == MIXTRAL_OUT_OF_MEMORY);
  CHECK(n == 99);
}

TEST_CASE("a generation that runs out of memory holds what the callback has seen, and goes on from there") {
  const Fixture f;
  struct Heard {
    std::int32_t tokens[32];
    std::size_t n = 0;
  };
  constexpr std::size_t kDrawn = 30;
  const auto generate = [](mixtral_session* s, Heard& heard) {
    static constexpr std::string_view kStop = "never said by this model";
    const mixtral_string stops[] = {{kStop.data(), kStop.size()}};
    mixtral_generate_params p;
    ok(mixtral_generate_params_init(&p, sizeof p));
    p.flags = MIXTRAL_GENERATE_IGNORE_EOS;
    p.max_tokens = static_cast<std::int64_t>(kDrawn - heard.n);
    p.stop_strings = stops;
    p.n_stop_strings = 1;
    p.on_token = [](void* user, std::int32_t token, const char*, std::size_t) {
      auto& h = *static_cast<Heard*>(user);
      if (token >= 0) h.tokens[h.n++] = token;
      return 0;
    };
    p.user = &heard;
    return mixtral_session_generate(s, &p, nullptr);
  };
  const auto prepared = [&] {
    CSession s = f.session();
    set_temperature(s.get(), 0);  // a failure may cost a random number
    return s;
  };
  const CSession reference = prepared();
  Heard all;
  ok(generate(reference.get(), all));
  const auto want = tokens_of(reference.get());
  REQUIRE(want.size() == kPrompt.size() + kDrawn);
  fail_each_allocation("session generate", [&](const auto& attempt) {
    const CSession s = prepared();
    Heard heard;
    attempt({.call = [&] { return generate(s.get(), heard); },
             .unchanged =
                 [&] {
                   auto seen = kPrompt;
                   seen.insert(seen.end(), heard.tokens, heard.tokens + heard.n);
                   return tokens_of(s.get()) == seen;
                 },
             .right = [&] { return tokens_of(s.get()) == want; }});
  });
}

TEST_CASE("texts, ids and conversations are converted or not, whichever allocation fails") {
  const Fixture f;
  const std::string text = "ab a [INST] \xC3\xA4\xFF IN bab";
  std::int32_t ids[256];
  char out[256];
  std::size_t n = 0;
  ok(mixtral_tokenize(f.ctx(), text.data(), text.size(), 0, ids, 256, &n));
  const std::vector<std::int32_t> want(ids, ids + n);
  const auto reads_as_wanted = [&] { return std::vector<std::int32_t>(ids, ids + n) == want; };
  fail_each_allocation("tokenize", [&](const auto& attempt) {
    n = 0;
    attempt({.call = [&] { return mixtral_tokenize(f.ctx(), text.data(), text.size(), 0, ids, 256, &n); },
             .unchanged = [&] { return n == 0; },
             .right = reads_as_wanted});
  });
  fail_each_allocation("detokenize", [&](const auto& attempt) {
    n = 0;
    attempt({.call = [&] { return mixtral_detokenize(f.ctx(), want.data(), want.size(), out, 256, &n); },
             .unchanged = [&] { return n == 0; },
             .right = [&] { return std::string(out, n).find("ab a [INST] \xC3\xA4") == 0; }});
  });
  float vector[64];
  std::size_t n_floats = 0;
  ok(mixtral_hidden(f.ctx(), want.data(), 5, MIXTRAL_HIDDEN_FINAL, MIXTRAL_POOL_MEAN, vector, 64, &n_floats));
  const std::vector<float> embedding(vector, vector + n_floats);
  fail_each_allocation("hidden", [&](const auto& attempt) {
    n_floats = 0;
    attempt({.call =
                 [&] {
                   return mixtral_hidden(f.ctx(), want.data(), 5, MIXTRAL_HIDDEN_FINAL, MIXTRAL_POOL_MEAN, vector, 64,
                                         &n_floats);
                 },
             .unchanged = [&] { return n_floats == 0; },
             .right = [&] { return std::vector<float>(vector, vector + n_floats) == embedding; }});
  });
  mixtral_chat_message messages[3] = {};
  for (std::size_t i = 0; i < 3; ++i) {
    messages[i].struct_size = sizeof messages[i];
    messages[i].role = static_cast<std::int32_t>(i);  // system, user, assistant
    messages[i].text = text.data();
    messages[i].text_size = text.size();
  }
  for (const std::int32_t style : {MIXTRAL_CHAT_V1, MIXTRAL_CHAT_V3}) {
    const std::string name = str("chat tokens, style ", style);
    const auto call = [&] {
      return mixtral_chat_tokens(f.ctx(), style, MIXTRAL_CHAT_ESCAPE, messages, 3, ids, 256, &n);
    };
    ok(call());
    const std::vector<std::int32_t> conversation(ids, ids + n);
    fail_each_allocation(name.c_str(), [&](const auto& attempt) {
      n = 0;
      attempt({.call = call,
               .unchanged = [&] { return n == 0; },
               .right = [&] { return std::vector<std::int32_t>(ids, ids + n) == conversation; }});
    });
  }
  fail_each_allocation("ctx routing_counts", [&](const auto& attempt) {
    std::uint64_t counts[8];
    n = 0;
    attempt({.call = [&] { return mixtral_ctx_routing_counts(f.ctx(), counts, 8, &n); },
             .unchanged = [&] { return n == 0; },
             .right = [&] { return n == 8; }});
  });
}
