// The generation loop: logits, sample, text, stop.
#pragma once

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
  std::vector<TokenId> stop_ids;          // end the text when drawn, for instance ModelConfig::eos_ids
  std::vector<std::string> stop_strings;  // end the text where one begins; need a tokenizer
  // May change the logits before they are sampled: ban a token with -infinity, bias, record.  [vocab_size]
  std::function<void(std::span<float> logits)> edit_logits;
  // Receives text in whole characters as it becomes certain; false ends the generation. Needs a tokenizer.
  std::function<bool(std::string_view text)> on_text;
  // Receives every drawn token; false ends the generation after it.
  std::function<bool(TokenId id)> on_token;
};

enum class StopReason { kMaxTokens, kStopId, kStopString, kContextFull, kCallback };
std::string_view name_of(StopReason reason) noexcept;

struct GenerateResult {
  std::vector<TokenId> ids;  // all that were drawn, a stop id included
  std::string text;          // without a stop string and what follows it; empty without a tokenizer
  StopReason reason = StopReason::kMaxTokens;
};

// Continues the session's tokens, of which there must be at least one. `tokenizer` may be null. Afterwards the
// session holds the prompt and all drawn tokens; the last of them is queued, not computed. Throws Error as
// Session and Sampler do; the session then holds what was drawn before.
GenerateResult generate(Session& session, const Tokenizer* tokenizer, const GenerateOptions& options,
                        ForwardObserver* observer = nullptr);

}  // namespace mixtral
