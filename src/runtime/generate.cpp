#include "mixtral/runtime/generate.hpp"

#include <algorithm>
#include <memory>

#include "mixtral/runtime/stop_matcher.hpp"
#include "mixtral/text/stream_decoder.hpp"

namespace mixtral {
namespace {

// Drawn tokens to certain text, if there is a tokenizer.
class TextStream {
 public:
  TextStream(const Tokenizer* tokenizer, const GenerateOptions& options, std::span<const TokenId> prompt)
      : n_pieces_(tokenizer == nullptr ? 0 : tokenizer->vocabulary().size()), stops_(options.stop_strings) {
    require(tokenizer != nullptr || options.stop_strings.empty(), "generate: stop strings need a tokenizer");
    if (tokenizer == nullptr) return;
    decoder_ = std::make_unique<StreamDecoder>(*tokenizer);
    for (const TokenId id : prompt) decode(id);
  }

  // The text that is certain now.
  std::string push(TokenId id) { return decoder_ ? stops_.push(decode(id)) : std::string(); }
  // What is left at the end.
  std::string finish() {
    std::string text;
    if (decoder_ && !stops_.stopped()) text = stops_.push(decoder_->flush());
    return text += stops_.flush();
  }
  bool stopped() const noexcept { return stops_.stopped(); }

 private:
  // Ids beyond the pieces, with which some models pad their vocabulary, are no text.
  std::string decode(TokenId id) { return id < n_pieces_ ? decoder_->push(id) : std::string(); }

  Index n_pieces_;
  StopMatcher stops_;
  std::unique_ptr<StreamDecoder> decoder_;  // null: no tokenizer
};

bool contains(std::span<const TokenId> ids, TokenId id) { return std::find(ids.begin(), ids.end(), id) != ids.end(); }

bool is_full(const Session& session) { return static_cast<Index>(session.tokens().size()) == session.max_positions(); }

}  // namespace

std::string_view name_of(StopReason reason) noexcept {
  static constexpr std::string_view kNames[] = {"max_tokens", "stop_id", "stop_string", "context_full", "callback"};
  return kNames[static_cast<int>(reason)];
}

TokenId draw(const Session& session, Sampler& sampler, const LogitsEditor& edit) {
  const Index queued = static_cast<Index>(session.tokens().size()) - session.length();
  require(queued == 0, "sample: ", queued, " tokens are queued, eval them first");
  require(!session.logits().empty(), "sample: there are no logits, eval a token first");
  return sampler.sample(session.logits(), session.tokens(), edit);
}

TokenId step(Session& session, Sampler& sampler, const LogitsEditor& edit, const StepHooks& hooks) {
  require(!is_full(session), ErrorCode::kContextFull, "step: no room for a token after ", session.tokens().size(),
          " in a context of ", session.max_positions());
  session.eval(hooks);
  session.reserve(1);  // a token that was drawn must not get lost
  const TokenId id = draw(session, sampler, edit);
  session.feed(id);
  return id;
}

GenerateResult generate(Session& session, Sampler& sampler, const Tokenizer* tokenizer, const GenerateOptions& options,
                        const StepHooks& hooks) {
  require(!session.tokens().empty(), "generate: the session is empty, feed at least one token");
  require(options.max_tokens >= 0, "generate: max_tokens is ", options.max_tokens);
  TextStream stream(tokenizer, options, session.tokens());
  GenerateResult result;
  bool reading = true;
  const auto deliver = [&](TokenId id, const std::string& text) {
    if (reading && options.on_token) reading = options.on_token(id, text);
  };
  while (static_cast<Index>(result.ids.size()) < options.max_tokens) {
    session.eval(hooks);
    session.reserve(1);
    const TokenId id = draw(session, sampler, options.edit_logits);
    const bool stop_id = contains(options.stop_ids, id);
    const std::string text = stop_id ? std::string() : stream.push(id);  // what ends a text is no part of it
    result.ids.push_back(id);
    result.text += text;
    const bool full = is_full(session);
    if (!full) session.feed(id);
    deliver(id, text);
    if (stop_id || stream.stopped() || full || !reading) {
      result.reason = stop_id            ? StopReason::kStopId
                      : stream.stopped() ? StopReason::kStopString
                      : full             ? StopReason::kContextFull
                                         : StopReason::kCallback;
      break;
    }
  }
  const std::string rest = stream.finish();
  result.text += rest;
  if (!rest.empty()) deliver(-1, rest);
  return result;
}

GenerateResult generate(Session& session, const Tokenizer* tokenizer, const GenerateOptions& options,
                        const StepHooks& hooks) {
  Sampler sampler(options.sampler);
  return generate(session, sampler, tokenizer, options, hooks);
}

}  // namespace mixtral
