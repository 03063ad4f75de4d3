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
  std::string push(TokenId id) {
    if (!decoder_) return {};
    const std::string text = decode(id);
    ends_.push_back((ends_.empty() ? 0 : ends_.back()) + text.size());
    return stops_.push(text);
  }
  // What is left at the end.
  std::string finish() {
    std::string text;
    if (decoder_ && !stops_.stopped()) text = stops_.push(decoder_->flush());
    return text += stops_.flush();
  }
  bool stopped() const noexcept { return stops_.stopped(); }
  // How many tokens the first so many bytes are of.
  Index tokens_of(std::size_t bytes) const noexcept {
    const auto last = std::lower_bound(ends_.begin(), ends_.end(), bytes);
    return bytes == 0 ? 0 : last - ends_.begin() + 1;
  }

 private:
  // Ids beyond the pieces, with which some models pad their vocabulary, are no text.
  std::string decode(TokenId id) { return id < n_pieces_ ? decoder_->push(id) : std::string(); }

  Index n_pieces_;
  StopMatcher stops_;
  std::unique_ptr<StreamDecoder> decoder_;  // null: no tokenizer
  std::vector<std::size_t> ends_;           // bytes of text up to each token
};

bool contains(std::span<const TokenId> ids, TokenId id) { return std::find(ids.begin(), ids.end(), id) != ids.end(); }

// Afterwards n more elements cannot fail.
template <class Container>
void reserve_more(Container& all, std::size_t n) {
  const std::size_t wanted = all.size() + n;
  if (wanted > all.capacity()) all.reserve(std::max(wanted, 2 * all.capacity()));
}

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

void GenerateOptions::validate() const {
  require(max_tokens >= 0, "generate: max_tokens is ", max_tokens);
  (void)StopMatcher(stop_strings);
}

void generate(Session& session, Sampler& sampler, const Tokenizer* tokenizer, const GenerateOptions& options,
              const StepHooks& hooks, GenerateResult& result) {
  require(!session.tokens().empty(), "generate: the session is empty, feed at least one token");
  options.validate();
  TextStream stream(tokenizer, options, session.tokens());
  result = {};
  bool reading = true;
  const auto deliver = [&](TokenId id, std::string_view text) {
    if (reading && options.on_token) reading = options.on_token(id, text);
  };
  // One token; false: it is the last one. It is drawn, taken down and then shown: what fails in between leaves no
  // trace.
  const auto draw_one = [&] {
    session.eval(hooks);
    session.reserve(1);
    reserve_more(result.ids, 1);
    const TokenId id = draw(session, sampler, options.edit_logits);
    const bool stop_id = contains(options.stop_ids, id);
    const std::string text = stop_id ? std::string() : stream.push(id);  // what ends a text is no part of it
    reserve_more(result.text, text.size());
    result.ids.push_back(id);
    result.text += text;
    if (!stop_id) result.n_text = static_cast<Index>(result.ids.size());
    const bool full = is_full(session);
    if (!full) session.feed(id);
    deliver(id, text);
    result.reason = stop_id            ? StopReason::kStopId
                    : stream.stopped() ? StopReason::kStopString
                    : full             ? StopReason::kContextFull
                    : !reading         ? StopReason::kCallback
                                       : StopReason::kMaxTokens;
    return result.reason == StopReason::kMaxTokens;
  };
  const auto finish = [&] {
    const std::string rest = stream.finish();
    result.text += rest;
    if (stream.stopped()) result.n_text = stream.tokens_of(result.text.size());
    return rest;
  };
  try {
    while (static_cast<Index>(result.ids.size()) < options.max_tokens && draw_one()) {
    }
  } catch (...) {
    try {
      finish();
    } catch (const std::bad_alloc&) {  // the first error is the one to tell
    }
    throw;
  }
  if (const std::string rest = finish(); !rest.empty()) deliver(-1, rest);
}

GenerateResult generate(Session& session, Sampler& sampler, const Tokenizer* tokenizer, const GenerateOptions& options,
                        const StepHooks& hooks) {
  GenerateResult result;
  generate(session, sampler, tokenizer, options, hooks, result);
  return result;
}

GenerateResult generate(Session& session, const Tokenizer* tokenizer, const GenerateOptions& options,
                        const StepHooks& hooks) {
  Sampler sampler(options.sampler);
  return generate(session, sampler, tokenizer, options, hooks);
}

}  // namespace mixtral
