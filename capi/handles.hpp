// What the opaque handles are, and how a call gets hold of them.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <utility>

#include "host_executor.hpp"
#include "mixtral.h"
#include "mixtral/core/cancel_flag.hpp"
#include "mixtral/runtime/conversation.hpp"
#include "mixtral/runtime/loaded_model.hpp"
#include "mixtral/runtime/sampler.hpp"
#include "mixtral/runtime/session.hpp"
#include "route_recorder.hpp"
#include "status.hpp"

namespace mixtral::capi {

// The first bytes of a handle's target say what it is, so that one kind given for the other is noticed. They are
// overwritten at the end: a handle used after that is noticed sometimes, and must never be.
class Tag {
 public:
  enum class Kind : std::uint64_t { kGone = 0, kCtx = 0x6374785f6d6f65ull, kSession = 0x7365735f6d6f65ull };
  explicit Tag(Kind kind) noexcept : kind_(kind) {}
  ~Tag() { kind_.store(Kind::kGone); }
  bool is(Kind kind) const noexcept { return kind_.load() == kind; }

 private:
  std::atomic<Kind> kind_;
};

// What a ctx and its sessions share; lives until the last of them is gone.
struct Engine {
  LoadedModel model;
  std::int32_t executor_kind;
  mixtral_log_fn log;
  void* log_user;
  RoutingTotals totals;
};

}  // namespace mixtral::capi

struct mixtral_ctx {
  explicit mixtral_ctx(std::shared_ptr<mixtral::capi::Engine> e) : engine(std::move(e)) {}

  mixtral::capi::Tag tag{mixtral::capi::Tag::Kind::kCtx};
  std::shared_ptr<mixtral::capi::Engine> engine;
};

struct mixtral_session {
  mixtral_session(std::shared_ptr<mixtral::capi::Engine> e, const mixtral::SessionOptions& options, bool record)
      : engine(std::move(e)), session(engine->model, options), routes(session, record, engine->totals) {}
  // A fork: without the callback, without a pending cancel.
  mixtral_session(const mixtral_session& other)
      : engine(other.engine),
        session(other.session),
        sampler(other.sampler),
        routes(session, other.routes),
        chat(other.chat) {}

  mixtral::capi::Tag tag{mixtral::capi::Tag::Kind::kSession};
  enum class Use { kIdle, kBusy, kDoomed };  // doomed: in use, and to be freed after that
  std::atomic<Use> use{Use::kIdle};
  mixtral::CancelFlag cancelled;
  std::shared_ptr<mixtral::capi::Engine> engine;
  mixtral::Session session;
  mixtral::Sampler sampler{mixtral::SamplerOptions{}};
  mixtral_logits_fn edit = nullptr;
  void* edit_user = nullptr;
  mixtral::capi::RouteRecorder routes;
  std::optional<mixtral::Conversation> chat;
  char error[mixtral::capi::kErrorBytes] = "";  // of the last call that failed
};

namespace mixtral::capi {

// The engine of a ctx. Throws Error(kInvalidArgument).
inline Engine& engine_of(const mixtral_ctx* ctx) {
  require(ctx != nullptr, "ctx is NULL");
  require(ctx->tag.is(Tag::Kind::kCtx), "ctx is not a mixtral_ctx");
  return *ctx->engine;
}

inline void require_session(const mixtral_session* session) {
  require(session != nullptr, "session is NULL");
  require(session->tag.is(Tag::Kind::kSession), "session is not a mixtral_session");
}

// Holds a session for one call, and frees it afterwards if it was destroyed meanwhile.
class InUse {
 public:
  // Throws Error(kBusy).
  explicit InUse(mixtral_session& session) : session_(session) {
    auto idle = mixtral_session::Use::kIdle;
    require(session.use.compare_exchange_strong(idle, mixtral_session::Use::kBusy), ErrorCode::kBusy,
            "another call is using this session, or was when this process was forked");
  }
  ~InUse() {
    auto busy = mixtral_session::Use::kBusy;
    if (!session_.use.compare_exchange_strong(busy, mixtral_session::Use::kIdle)) delete &session_;
  }
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;

 private:
  mixtral_session& session_;
};

// Runs action(session) as the session's only call, and keeps the text of its failure.
template <class F>
mixtral_status with_session(mixtral_session* session, F&& action) noexcept {
  return guarded([&] {
    require_session(session);
    const InUse in_use(*session);
    const mixtral_status status = guarded([&] { action(*session); });
    if (status == MIXTRAL_OK) return;
    if (status != MIXTRAL_BUFFER_TOO_SMALL) std::copy_n(mixtral_last_error(), sizeof session->error, session->error);
    throw ReportedStatus{status};
  });
}

}  // namespace mixtral::capi
