// The C ABI in tests: handles that free themselves, and the tiny model.
#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral.h"
#include "support/golden.hpp"

namespace mixtral::test {

struct Free {
  void operator()(mixtral_ctx* ctx) const noexcept { mixtral_ctx_destroy(ctx); }
  void operator()(mixtral_session* session) const noexcept { mixtral_session_destroy(session); }
};
using Ctx = std::unique_ptr<mixtral_ctx, Free>;
using CSession = std::unique_ptr<mixtral_session, Free>;

// Fails the test with the library's text.
inline void ok(mixtral_status status) {
  if (status != MIXTRAL_OK) FAIL(std::string(mixtral_status_text(status)), ": ", std::string(mixtral_last_error()));
}

// Checks the status and gives back the text.
inline std::string refused(mixtral_status status, mixtral_status want) {
  CHECK(status == want);
  return status == MIXTRAL_OK ? "" : mixtral_last_error();
}

inline mixtral_params params() {
  mixtral_params p;
  ok(mixtral_params_init(&p, sizeof p));
  p.n_threads = 2;
  return p;
}

inline Ctx open_ctx(const mixtral_params& p, const std::filesystem::path& dir = tiny_dir()) {
  const std::string path = dir.string();
  mixtral_ctx* ctx = nullptr;
  ok(mixtral_ctx_create(path.data(), path.size(), &p, &ctx));
  return Ctx(ctx);
}

// One for all tests that change nothing about it.
inline mixtral_ctx* tiny_ctx() {
  static const Ctx ctx = open_ctx(params());
  return ctx.get();
}

inline mixtral_session_params session_params(std::uint32_t flags = 0, std::int64_t max_positions = 0) {
  mixtral_session_params p;
  ok(mixtral_session_params_init(&p, sizeof p));
  p.flags = flags;
  p.max_positions = max_positions;
  return p;
}

inline CSession make_session(mixtral_ctx* ctx, const mixtral_session_params& p = session_params()) {
  mixtral_session* session = nullptr;
  ok(mixtral_session_create(ctx, &p, &session));
  return CSession(session);
}

inline void set_temperature(mixtral_session* session, float temperature, std::uint64_t seed = 0) {
  mixtral_sampler_params p;
  ok(mixtral_sampler_params_init(&p, sizeof p));
  p.temperature = temperature;
  p.seed = seed;
  ok(mixtral_session_set_sampler(session, &p));
}

// What call(data, capacity, size) fills: asked for the size first.
template <class T, class F>
std::vector<T> read_all(F&& call) {
  std::size_t size = 0;
  const mixtral_status status = call(static_cast<T*>(nullptr), std::size_t{0}, &size);
  if (status == MIXTRAL_OK) return {};
  CHECK(status == MIXTRAL_BUFFER_TOO_SMALL);
  std::vector<T> out(size);
  ok(call(out.data(), out.size(), &size));
  CHECK(size == out.size());
  return out;
}

inline std::vector<std::int32_t> tokenize(const mixtral_ctx* ctx, std::string_view text) {
  return read_all<std::int32_t>([&](std::int32_t* out, std::size_t capacity, std::size_t* n) {
    return mixtral_tokenize(ctx, text.data(), text.size(), MIXTRAL_TOKENIZE_BOS, out, capacity, n);
  });
}

inline std::vector<std::int32_t> prompt() { return tokenize(tiny_ctx(), "RETURN VALUE\n       On success,"); }

inline void feed(mixtral_session* session, const std::vector<std::int32_t>& ids, std::uint32_t flags = 0) {
  ok(mixtral_session_feed(session, ids.data(), ids.size(), flags));
}

inline std::vector<float> logits_of(mixtral_session* session, std::size_t position) {
  return read_all<float>([&](float* out, std::size_t capacity, std::size_t* n) {
    return mixtral_session_logits(session, position, out, capacity, n);
  });
}

inline std::vector<std::int32_t> tokens_of(mixtral_session* session) {
  return read_all<std::int32_t>([&](std::int32_t* out, std::size_t capacity, std::size_t* n) {
    return mixtral_session_tokens(session, out, capacity, n);
  });
}

inline mixtral_session_state state_of(mixtral_session* session) {
  mixtral_session_state state{};
  state.struct_size = sizeof state;
  ok(mixtral_session_info(session, &state));
  return state;
}

}  // namespace mixtral::test
