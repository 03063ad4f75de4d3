// Sequences of C ABI calls decoded from bytes: any functions in any order with good and bad handles, pointers, sizes,
// structs, callbacks that call back, and allocations that fail. After each call it checks what mixtral.h promises.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "mixtral.h"

namespace mixtral::fuzz {

// Every function of mixtral.h, and what the header says it may return. (Where memory runs out that is said by any.)
#define MIXTRAL_FUZZ_STATUS(name) (1u << MIXTRAL_##name)
#define MIXTRAL_FUZZ_PLAIN (MIXTRAL_FUZZ_STATUS(OK) | MIXTRAL_FUZZ_STATUS(INVALID_ARGUMENT))
#define MIXTRAL_FUZZ_FILLS (MIXTRAL_FUZZ_PLAIN | MIXTRAL_FUZZ_STATUS(BUFFER_TOO_SMALL))
#define MIXTRAL_FUZZ_TEXT (MIXTRAL_FUZZ_FILLS | MIXTRAL_FUZZ_STATUS(NOT_FOUND))
#define MIXTRAL_FUZZ_SESSION (MIXTRAL_FUZZ_PLAIN | MIXTRAL_FUZZ_STATUS(BUSY))
#define MIXTRAL_FUZZ_SESSION_FILLS (MIXTRAL_FUZZ_SESSION | MIXTRAL_FUZZ_STATUS(BUFFER_TOO_SMALL))
#define MIXTRAL_FUZZ_HIDDEN \
  (MIXTRAL_FUZZ_SESSION_FILLS | MIXTRAL_FUZZ_STATUS(CONTEXT_FULL) | MIXTRAL_FUZZ_STATUS(INTERNAL))
#define MIXTRAL_FUZZ_FEED (MIXTRAL_FUZZ_SESSION | MIXTRAL_FUZZ_STATUS(CONTEXT_FULL))
#define MIXTRAL_FUZZ_COMPUTES (MIXTRAL_FUZZ_SESSION | MIXTRAL_FUZZ_STATUS(CANCELLED) | MIXTRAL_FUZZ_STATUS(INTERNAL))
#define MIXTRAL_FUZZ_EVALUATE (MIXTRAL_FUZZ_COMPUTES | MIXTRAL_FUZZ_STATUS(NOT_FOUND))
#define MIXTRAL_FUZZ_CREATE                                                                                          \
  (MIXTRAL_FUZZ_PLAIN | MIXTRAL_FUZZ_STATUS(NOT_FOUND) | MIXTRAL_FUZZ_STATUS(IO) | MIXTRAL_FUZZ_STATUS(BAD_FORMAT) | \
   MIXTRAL_FUZZ_STATUS(UNSUPPORTED) | MIXTRAL_FUZZ_STATUS(INTERNAL))
#define MIXTRAL_FUZZ_FUNCTIONS(X)                                                \
  X(version, MIXTRAL_FUZZ_STATUS(OK))                                            \
  X(version_text, MIXTRAL_FUZZ_STATUS(OK))                                       \
  X(status_text, MIXTRAL_FUZZ_STATUS(OK))                                        \
  X(last_error, MIXTRAL_FUZZ_STATUS(OK))                                         \
  X(params_init, MIXTRAL_FUZZ_PLAIN)                                             \
  X(ctx_create, MIXTRAL_FUZZ_CREATE)                                             \
  X(ctx_destroy, MIXTRAL_FUZZ_STATUS(OK))                                        \
  X(ctx_info, MIXTRAL_FUZZ_PLAIN)                                                \
  X(tokenize, MIXTRAL_FUZZ_TEXT)                                                 \
  X(detokenize, MIXTRAL_FUZZ_TEXT)                                               \
  X(token_bytes, MIXTRAL_FUZZ_TEXT)                                              \
  X(token_is_eos, MIXTRAL_FUZZ_STATUS(OK))                                       \
  X(chat_tokens, MIXTRAL_FUZZ_TEXT)                                              \
  X(chat_begin, MIXTRAL_FUZZ_SESSION | MIXTRAL_FUZZ_STATUS(NOT_FOUND))           \
  X(chat_add, MIXTRAL_FUZZ_SESSION)                                              \
  X(chat_answer, MIXTRAL_FUZZ_EVALUATE | MIXTRAL_FUZZ_STATUS(CONTEXT_FULL))      \
  X(chat_say, MIXTRAL_FUZZ_EVALUATE | MIXTRAL_FUZZ_STATUS(CONTEXT_FULL))         \
  X(chat_message_text, MIXTRAL_FUZZ_SESSION_FILLS)                               \
  X(chat_message_tokens, MIXTRAL_FUZZ_SESSION_FILLS)                             \
  X(chat_keep, MIXTRAL_FUZZ_SESSION)                                             \
  X(hidden, MIXTRAL_FUZZ_HIDDEN)                                                 \
  X(session_params_init, MIXTRAL_FUZZ_PLAIN)                                     \
  X(session_create, MIXTRAL_FUZZ_PLAIN)                                          \
  X(session_destroy, MIXTRAL_FUZZ_STATUS(OK))                                    \
  X(session_info, MIXTRAL_FUZZ_SESSION)                                          \
  X(session_feed, MIXTRAL_FUZZ_FEED)                                             \
  X(session_set_tokens, MIXTRAL_FUZZ_FEED)                                       \
  X(session_tokens, MIXTRAL_FUZZ_SESSION_FILLS)                                  \
  X(session_eval, MIXTRAL_FUZZ_EVALUATE)                                         \
  X(session_logits, MIXTRAL_FUZZ_SESSION_FILLS)                                  \
  X(sampler_params_init, MIXTRAL_FUZZ_PLAIN)                                     \
  X(session_set_sampler, MIXTRAL_FUZZ_SESSION)                                   \
  X(session_set_logits_callback, MIXTRAL_FUZZ_SESSION)                           \
  X(session_sample, MIXTRAL_FUZZ_COMPUTES)                                       \
  X(session_step, MIXTRAL_FUZZ_EVALUATE | MIXTRAL_FUZZ_STATUS(CONTEXT_FULL))     \
  X(session_cancel, MIXTRAL_FUZZ_PLAIN)                                          \
  X(session_clear_cancel, MIXTRAL_FUZZ_SESSION)                                  \
  X(session_error, MIXTRAL_FUZZ_SESSION_FILLS)                                   \
  X(session_reset, MIXTRAL_FUZZ_SESSION)                                         \
  X(session_fork, MIXTRAL_FUZZ_SESSION)                                          \
  X(session_truncate, MIXTRAL_FUZZ_SESSION)                                      \
  X(generate_params_init, MIXTRAL_FUZZ_PLAIN)                                    \
  X(session_generate, MIXTRAL_FUZZ_EVALUATE | MIXTRAL_FUZZ_STATUS(CONTEXT_FULL)) \
  X(ctx_routing_counts, MIXTRAL_FUZZ_FILLS)                                      \
  X(ctx_reset_routing_counts, MIXTRAL_FUZZ_PLAIN)                                \
  X(session_routes, MIXTRAL_FUZZ_SESSION_FILLS)                                  \
  X(session_reset_routes, MIXTRAL_FUZZ_SESSION)

enum class Function {
#define MIXTRAL_FUZZ_NAME(name, statuses) name,
  MIXTRAL_FUZZ_FUNCTIONS(MIXTRAL_FUZZ_NAME)
#undef MIXTRAL_FUZZ_NAME
};

struct FunctionInfo {
  const char* name;
  unsigned statuses;  // one bit for each that it may return
};
inline constexpr FunctionInfo kFunctions[] = {
#define MIXTRAL_FUZZ_INFO(name, statuses) {"mixtral_" #name, statuses},
    MIXTRAL_FUZZ_FUNCTIONS(MIXTRAL_FUZZ_INFO)
#undef MIXTRAL_FUZZ_INFO
};
inline constexpr std::size_t kStatuses = MIXTRAL_BUFFER_TOO_SMALL + 1;

// How often each function gave each status; one without a status counts as OK.
using Counts = std::array<std::array<std::uint64_t, kStatuses>, std::size(kFunctions)>;

// Plays the sequence that the bytes stand for, and says broken(...) if the library breaks a promise.
void play(std::span<const std::uint8_t> bytes, Counts& counts);

}  // namespace mixtral::fuzz
