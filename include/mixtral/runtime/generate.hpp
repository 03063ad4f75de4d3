// The generation loop: logits, sample, text, stop.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/runtime/sampler.hpp"
#include "mixtral/runtime/session.hpp"
#include "mixtral/text/tokenizer.hpp"

namespace mixtral {

struct GenerateOptions {
  Index max_tokens = 128;
  SamplerOptions sampler;
  std::vector<TokenId>
      stop_ids;  // end the text when drawn, without any of their own, for instance ModelConfig::eos_ids
  std::vector<std::string> stop_strings;  // end the text where one begins; need a tokenizer
  LogitsEditor edit_logits;
  // Receives every drawn token and the text, in whole characters, that became certain with it (none without a
  // tokenizer); at the end, if text is left, once more with id -1. False ends the generation, and nothing follows.
  std::function<bool(TokenId id, std::string_view text)> on_token;

  // Throws Error(kInvalidArgument): a negative number of tokens, an empty stop string.
  void validate() const;
};

// Pinned: it crosses the C ABI.
enum class StopReason : std::int32_t { kMaxTokens = 0, kStopId = 1, kStopString = 2, kContextFull = 3, kCallback = 4 };
std::string_view name_of(StopReason reason) noexcept;

struct GenerateResult {
  std::vector<TokenId> ids;  // all that were drawn, a stop id included
  std::string text;          // without a stop string and what follows it; empty without a tokenizer
  Index n_text = 0;          // of ids: without a stop id, without those that have nothing of the text but a stop string
  StopReason reason = StopReason::kMaxTokens;
};

// Continues the session's tokens, of which there must be at least one. `tokenizer` may be null. Afterwards the
// session holds the prompt and all drawn tokens; the last of them is queued, not computed (in a full context it is not
// there). Throws Error as Session and Sampler do; the session then holds the tokens that on_token has seen.
// `result` holds what was drawn, also after an error. `options.sampler` is for the last form, which makes a sampler of
// its own.
void generate(Session& session, Sampler& sampler, const Tokenizer* tokenizer, const GenerateOptions& options,
              const StepHooks& hooks, GenerateResult& result);
GenerateResult generate(Session& session, Sampler& sampler, const Tokenizer* tokenizer, const GenerateOptions& options,
                        const StepHooks& hooks = {});
GenerateResult generate(Session& session, const Tokenizer* tokenizer, const GenerateOptions& options,
                        const StepHooks& hooks = {});

// Draws a token from the logits of the last computed one; it is not queued. Throws Error(kInvalidArgument) if tokens
// are queued or there are no logits, and what the sampler and `edit` throw; then nothing has changed.
TokenId draw(const Session& session, Sampler& sampler, const LogitsEditor& edit = {});

// One step: computes what is queued, draws a token and queues it. Throws Error(kContextFull) if there is no room for
// it; whatever is thrown, the session is as before, or as after its eval().
TokenId step(Session& session, Sampler& sampler, const LogitsEditor& edit = {}, const StepHooks& hooks = {});

}  // namespace mixtral
