#include "mixtral/runtime/generate.hpp"

#include <algorithm>
#include <optional>

#include "mixtral/runtime/stop_matcher.hpp"
#include "mixtral/text/stream_decoder.hpp"

namespace mixtral {
namespace {

// Drawn tokens to certain text, if there is a tokenizer.
class TextStream {
 public:
  TextStream(const Tokenizer* tokenizer, const GenerateOptions& options, std::span<const TokenId> prompt)
      : on_text_(options.on_text),
        n_pieces_(tokenizer == nullptr ? 0 : tokenizer->vocabulary().size()),
        stops_(options.stop_strings) {
    require(tokenizer != nullptr || (options.stop_strings.empty() && !options.on_text),
            "generate: stop strings and text need a tokenizer");
    if (tokenizer == nullptr) return;
    decoder_.emplace(*tokenizer);
    for (const TokenId id : prompt) decode(id);
  }

  // False if the receiver wants no more.
  bool push(TokenId id) { return !decoder_ || deliver(stops_.push(decode(id))); }
  void finish() {
    if (decoder_ && !stops_.stopped()) deliver(stops_.push(decoder_->flush()));
    deliver(stops_.flush());
  }
  bool stopped() const noexcept { return stops_.stopped(); }
  std::string take() { return std::move(text_); }

 private:
  // Ids beyond the pieces, with which some models pad their vocabulary, are no text.
  std::string decode(TokenId id) { return id < n_pieces_ ? decoder_->push(id) : std::string(); }

  // A receiver that said stop gets no more.
  bool deliver(const std::string& text) {
    text_ += text;
    if (!text.empty() && on_text_ && reading_) reading_ = on_text_(text);
    return reading_;
  }

  const std::function<bool(std::string_view)>& on_text_;
  Index n_pieces_;
  StopMatcher stops_;
  std::optional<StreamDecoder> decoder_;
  std::string text_;
  bool reading_ = true;
};

}  // namespace

std::string_view name_of(StopReason reason) noexcept {
  static constexpr std::string_view kNames[] = {"max_tokens", "stop_id", "stop_string", "context_full", "callback"};
  return kNames[static_cast<int>(reason)];
}

GenerateResult generate(Session& session, const Tokenizer* tokenizer, const GenerateOptions& options,
                        ForwardObserver* observer) {
  require(!session.tokens().empty(), "generate: the session is empty, feed at least one token");
  require(options.max_tokens >= 0, "generate: max_tokens is ", options.max_tokens);
  Sampler sampler(options.sampler);
  TextStream text(tokenizer, options, session.tokens());
  GenerateResult result;
  std::vector<float> logits;
  while (static_cast<Index>(result.ids.size()) < options.max_tokens) {
    session.eval(observer);
    logits.assign(session.logits().begin(), session.logits().end());
    if (options.edit_logits) options.edit_logits(logits);
    const TokenId id = sampler.sample(logits, session.tokens());
    result.ids.push_back(id);
    const bool wanted = (!options.on_token || options.on_token(id));
    const bool read_on = text.push(id);
    const bool full = static_cast<Index>(session.tokens().size()) == session.max_positions();
    if (!full) session.feed(id);
    const bool stop_id = std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end();
    if (stop_id || text.stopped() || !wanted || !read_on || full) {
      result.reason = stop_id          ? StopReason::kStopId
                      : text.stopped() ? StopReason::kStopString
                      : full           ? StopReason::kContextFull
                                       : StopReason::kCallback;
      break;
    }
  }
  text.finish();
  result.text = text.take();
  return result;
}

}  // namespace mixtral
