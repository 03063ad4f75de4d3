// Calls that draw tokens: their options, hooks and results.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "handles.hpp"
#include "mixtral/runtime/generate.hpp"
#include "options.hpp"

namespace mixtral::capi {

inline constexpr mixtral_generate_params kGenerateDefaults{.struct_size = sizeof(mixtral_generate_params),
                                                           .flags = 0,
                                                           .max_tokens = 128,
                                                           .stop_strings = nullptr,
                                                           .n_stop_strings = 0,
                                                           .stop_tokens = nullptr,
                                                           .n_stop_tokens = 0,
                                                           .on_token = nullptr,
                                                           .user = nullptr};

// Runs action(hooks), which evaluates queued tokens. A cancel ends one call: the one that says that it was cancelled.
template <class F>
void evaluating(mixtral_session& s, F&& action) {
  StepHooks hooks(&s.routes);
  hooks.cancel = &s.cancelled;
  s.routes.settle();
  try {
    s.cancelled.check();
    action(hooks);
  } catch (const Error& error) {
    s.routes.settle();
    if (error.code() == ErrorCode::kCancelled) s.cancelled.clear();
    throw;
  } catch (...) {
    s.routes.settle();
    throw;
  }
  s.routes.settle();
}

inline LogitsEditor editor_of(const mixtral_session& s) {
  if (s.edit == nullptr) return {};
  return [edit = s.edit, user = s.edit_user](std::span<float> logits) {
    require(edit(user, logits.data(), logits.size()) == 0, ErrorCode::kCancelled, "the logits callback said stop");
  };
}

inline std::vector<std::string> read_strings(const mixtral_string* strings, std::size_t n) {
  std::vector<std::string> out;
  for (const mixtral_string& s : input(strings, n, "stop_strings")) {
    out.emplace_back(input_text(s.data, s.size, "stop string"));
  }
  return out;
}

// NULL: the defaults.
inline GenerateOptions read_generate(const mixtral_session& s, const mixtral_generate_params* params) {
  const mixtral_generate_params p =
      params == nullptr ? kGenerateDefaults : read_struct(params, kGenerateDefaults, "params");
  require_flags(p.flags, MIXTRAL_GENERATE_IGNORE_EOS, "generate");
  GenerateOptions options;
  options.max_tokens = p.max_tokens;
  const auto stops = input(p.stop_tokens, p.n_stop_tokens, "stop_tokens");
  options.stop_ids.assign(stops.begin(), stops.end());
  if ((p.flags & MIXTRAL_GENERATE_IGNORE_EOS) == 0) {
    const std::vector<TokenId>& eos = s.engine->model.config().eos_ids;
    options.stop_ids.insert(options.stop_ids.end(), eos.begin(), eos.end());
  }
  options.stop_strings = read_strings(p.stop_strings, p.n_stop_strings);
  options.edit_logits = editor_of(s);
  if (p.on_token != nullptr) {
    options.on_token = [call = p.on_token, user = p.user](TokenId id, std::string_view text) {
      return call(user, id, text.data(), text.size()) == 0;
    };
  }
  return options;
}

// The numbers of both are the same ones.
constexpr bool is(StopReason reason, std::int32_t number) { return static_cast<std::int32_t>(reason) == number; }
static_assert(is(StopReason::kMaxTokens, MIXTRAL_STOP_MAX_TOKENS) && is(StopReason::kStopId, MIXTRAL_STOP_TOKEN) &&
              is(StopReason::kStopString, MIXTRAL_STOP_STRING) &&
              is(StopReason::kContextFull, MIXTRAL_STOP_CONTEXT_FULL) &&
              is(StopReason::kCallback, MIXTRAL_STOP_CALLBACK));

// Where the caller wants to have the result, or NULL. It is checked before the work begins.
class ResultPlace {
 public:
  explicit ResultPlace(mixtral_generate_result* result) : result_(result) {
    if (result != nullptr) require_struct(result, "result");
  }
  void write(StopReason reason, Index n_tokens, Index n_prompt, Index n_kept) const {
    if (result_ == nullptr) return;
    write_struct(result_,
                 {.struct_size = 0,
                  .stop_reason = static_cast<std::int32_t>(reason),
                  .n_tokens = n_tokens,
                  .n_prompt = n_prompt,
                  .n_kept = n_kept},
                 "result");
  }

 private:
  mixtral_generate_result* result_;
};

}  // namespace mixtral::capi
