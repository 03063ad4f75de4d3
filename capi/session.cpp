// Sessions: tokens in, logits and tokens out.
#include <optional>

#include "generating.hpp"
#include "handles.hpp"
#include "mixtral/runtime/generate.hpp"
#include "options.hpp"

namespace mixtral::capi {
namespace {

constexpr mixtral_session_params kDefaults{.struct_size = sizeof(mixtral_session_params),
                                           .flags = 0,
                                           .max_positions = 0,
                                           .chunk = SessionOptions{}.chunk,
                                           .kv_type = MIXTRAL_KV_BF16,
                                           .reserved = 0};

DType kv_dtype(std::int32_t type) {
  switch (type) {
    case MIXTRAL_KV_BF16: return DType::kBF16;
    case MIXTRAL_KV_F32: return DType::kF32;
    case MIXTRAL_KV_I8: return DType::kI8;
    default: fail(ErrorCode::kInvalidArgument, "params: kv_type is ", type, ", expected MIXTRAL_KV_*");
  }
}

constexpr mixtral_sampler_params kSamplerDefaults{.struct_size = sizeof(mixtral_sampler_params),
                                                  .top_k = 0,
                                                  .temperature = 1,
                                                  .top_p = 1,
                                                  .min_p = 0,
                                                  .repetition_penalty = 1,
                                                  .seed = 0};

}  // namespace
}  // namespace mixtral::capi

using namespace mixtral;
using namespace mixtral::capi;

mixtral_status mixtral_session_params_init(mixtral_session_params* params, size_t struct_size) {
  return guarded([&] { init_struct(params, struct_size, kDefaults, "params"); });
}

mixtral_status mixtral_sampler_params_init(mixtral_sampler_params* params, size_t struct_size) {
  return guarded([&] { init_struct(params, struct_size, kSamplerDefaults, "params"); });
}

mixtral_status mixtral_generate_params_init(mixtral_generate_params* params, size_t struct_size) {
  return guarded([&] { init_struct(params, struct_size, kGenerateDefaults, "params"); });
}

mixtral_status mixtral_session_create(mixtral_ctx* ctx, const mixtral_session_params* params,
                                      mixtral_session** session) {
  return guarded([&] {
    (void)engine_of(ctx);
    require(session != nullptr, "the place for the session is NULL");
    const mixtral_session_params p = params == nullptr ? kDefaults : read_struct(params, kDefaults, "params");
    require_flags(p.flags, MIXTRAL_SESSION_RECORD_ROUTES, "params");
    require(p.reserved == 0, "params: reserved is ", p.reserved, ", expected 0");
    const SessionOptions options{.max_positions = p.max_positions, .chunk = p.chunk, .kv_dtype = kv_dtype(p.kv_type)};
    *session = new mixtral_session(ctx->engine, options, (p.flags & MIXTRAL_SESSION_RECORD_ROUTES) != 0);
  });
}

void mixtral_session_destroy(mixtral_session* session) {
  if (session == nullptr || !session->tag.is(Tag::Kind::kSession)) return;
  using Use = mixtral_session::Use;
  session->cancelled.set();
  for (Use seen = session->use.load(); seen != Use::kDoomed;) {
    const Use next = seen == Use::kBusy ? Use::kDoomed : Use::kBusy;
    if (!session->use.compare_exchange_weak(seen, next)) continue;
    if (seen == Use::kIdle) delete session;
    return;
  }
}

mixtral_status mixtral_session_info(mixtral_session* session, mixtral_session_state* state) {
  return with_session(session, [&](mixtral_session& s) {
    mixtral_session_state out{};
    out.flags = s.routes.records() ? MIXTRAL_SESSION_RECORD_ROUTES : 0;
    out.n_tokens = static_cast<Index>(s.session.tokens().size());
    out.n_computed = s.session.length();
    out.max_positions = s.session.max_positions();
    out.kv_bytes = s.session.kv_bytes();
    out.kv_shared_bytes = s.session.kv_shared_bytes();
    out.n_messages = s.chat ? static_cast<Index>(s.chat->messages().size()) : -1;
    write_struct(state, out, "state");
  });
}

mixtral_status mixtral_session_feed(mixtral_session* session, const int32_t* tokens, size_t n_tokens, uint32_t flags) {
  return with_session(session, [&](mixtral_session& s) {
    require_flags(flags, MIXTRAL_FEED_LOGITS, "feed");
    const KeepLogits keep = (flags & MIXTRAL_FEED_LOGITS) != 0 ? KeepLogits::kAll : KeepLogits::kLast;
    s.session.feed(input(tokens, n_tokens, "tokens"), keep);
  });
}

mixtral_status mixtral_session_set_tokens(mixtral_session* session, const int32_t* tokens, size_t n_tokens,
                                          size_t* n_kept) {
  return with_session(session, [&](mixtral_session& s) {
    const Index kept = s.session.set_tokens(input(tokens, n_tokens, "tokens"));
    s.routes.truncate(kept);
    if (n_kept != nullptr) *n_kept = static_cast<std::size_t>(kept);
  });
}

mixtral_status mixtral_session_tokens(mixtral_session* session, int32_t* tokens, size_t capacity, size_t* n_tokens) {
  return with_session(session, [&](mixtral_session& s) {
    const Output out(tokens, capacity, n_tokens, "tokens");
    out.write(s.session.tokens());
  });
}

mixtral_status mixtral_session_eval(mixtral_session* session) {
  return with_session(
      session, [&](mixtral_session& s) { evaluating(s, [&](const StepHooks& hooks) { s.session.eval(hooks); }); });
}

mixtral_status mixtral_session_logits(mixtral_session* session, size_t position, float* logits, size_t capacity,
                                      size_t* n_logits) {
  return with_session(session, [&](mixtral_session& s) {
    const Output out(logits, capacity, n_logits, "logits");
    require(position < static_cast<std::size_t>(s.session.length()), "logits: position ", position, " of ",
            s.session.length(), " computed tokens");
    const auto row = s.session.logits(static_cast<Index>(position));
    require(!row.empty(), "logits: those of position ", position,
            " were not kept: feed the token with MIXTRAL_FEED_LOGITS and read them after the eval that computes it");
    out.write(row);
  });
}

mixtral_status mixtral_session_set_sampler(mixtral_session* session, const mixtral_sampler_params* params) {
  return with_session(session, [&](mixtral_session& s) {
    const mixtral_sampler_params p =
        params == nullptr ? kSamplerDefaults : read_struct(params, kSamplerDefaults, "params");
    s.sampler = Sampler({.temperature = p.temperature,
                         .top_k = p.top_k,
                         .top_p = p.top_p,
                         .min_p = p.min_p,
                         .repetition_penalty = p.repetition_penalty,
                         .seed = p.seed});
  });
}

mixtral_status mixtral_session_set_logits_callback(mixtral_session* session, mixtral_logits_fn callback, void* user) {
  return with_session(session, [&](mixtral_session& s) {
    s.edit = callback;
    s.edit_user = user;
  });
}

mixtral_status mixtral_session_sample(mixtral_session* session, int32_t* token) {
  return with_session(session, [&](mixtral_session& s) {
    require(token != nullptr, "the place for the token is NULL");
    *token = draw(s.session, s.sampler, editor_of(s));
  });
}

mixtral_status mixtral_session_step(mixtral_session* session, int32_t* token) {
  return with_session(session, [&](mixtral_session& s) {
    require(token != nullptr, "the place for the token is NULL");
    evaluating(s, [&](const StepHooks& hooks) { *token = step(s.session, s.sampler, editor_of(s), hooks); });
  });
}

mixtral_status mixtral_session_cancel(mixtral_session* session) {
  if (session == nullptr) return MIXTRAL_OK;
  return guarded([&] {
    require_session(session);
    session->cancelled.set();
  });
}

mixtral_status mixtral_session_clear_cancel(mixtral_session* session) {
  return with_session(session, [&](mixtral_session& s) { s.cancelled.clear(); });
}

mixtral_status mixtral_session_error(mixtral_session* session, char* text, size_t capacity, size_t* text_size) {
  return with_session(session, [&](mixtral_session& s) {
    const Output out(text, capacity, text_size, "text");
    out.write(std::string_view(s.error));
  });
}

mixtral_status mixtral_session_reset(mixtral_session* session) {
  return with_session(session, [&](mixtral_session& s) {
    s.session.truncate(0);
    s.sampler.restart();
    s.routes.truncate(0);
    s.cancelled.clear();
    s.chat.reset();
  });
}

mixtral_status mixtral_session_fork(mixtral_session* session, mixtral_session** fork) {
  return with_session(session, [&](mixtral_session& s) {
    require(fork != nullptr, "the place for the fork is NULL");
    *fork = new mixtral_session(s);
  });
}

mixtral_status mixtral_session_truncate(mixtral_session* session, size_t n_tokens) {
  return with_session(session, [&](mixtral_session& s) {
    require(n_tokens <= static_cast<std::size_t>(s.session.length()), "truncate: to ", n_tokens, " of ",
            s.session.length(), " computed tokens");
    s.session.truncate(static_cast<Index>(n_tokens));
    s.routes.truncate(static_cast<Index>(n_tokens));
  });
}

mixtral_status mixtral_session_generate(mixtral_session* session, const mixtral_generate_params* params,
                                        mixtral_generate_result* result) {
  return with_session(session, [&](mixtral_session& s) {
    const ResultPlace place(result);
    const GenerateOptions options = read_generate(s, params);
    const std::optional<Tokenizer>& tokenizer = s.engine->model.tokenizer;
    const auto n_prompt = static_cast<Index>(s.session.tokens().size()), n_kept = s.session.length();
    evaluating(s, [&](const StepHooks& hooks) {
      const GenerateResult out = generate(s.session, s.sampler, tokenizer ? &*tokenizer : nullptr, options, hooks);
      place.write(out.reason, static_cast<Index>(out.ids.size()), n_prompt, n_kept);
    });
  });
}

mixtral_status mixtral_session_routes(mixtral_session* session, size_t position, int32_t* experts, float* weights,
                                      size_t capacity, size_t* n_routes) {
  return with_session(session, [&](mixtral_session& s) {
    const Output out(experts, capacity, n_routes, "experts");
    const auto at = static_cast<Index>(std::min(position, kMaxBytes));
    const auto route = s.routes.experts(at);
    require(!route.empty(), "routes: none is recorded for position ", position, " of ", s.session.length(),
            " computed tokens",
            s.routes.records() ? "" : ": the session was made without MIXTRAL_SESSION_RECORD_ROUTES");
    out.write(route);
    if (weights != nullptr) std::copy_n(s.routes.weights(at).data(), route.size(), weights);
  });
}

mixtral_status mixtral_session_reset_routes(mixtral_session* session) {
  return with_session(session, [&](mixtral_session& s) { s.routes.forget(s.session.length()); });
}
