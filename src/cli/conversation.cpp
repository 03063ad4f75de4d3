#include "cli/conversation.hpp"

#include <utility>

#include "report/numbers.hpp"
#include "report/routing_tables.hpp"

namespace mixtral::cli {
namespace {

// Shows how far a long prompt has come.
class Progress final : public ForwardObserver {
 public:
  Progress(bool show, Index rows) : show_(show), bar_("prompt", rows) {}

  void on_layer(Index /*layer*/, TensorView<const float, 2> x) override {
    if (show_) bar_.show(done_ += x.dim(0));
  }
  void end_of_prompt() { bar_.finish(); }

 private:
  bool show_;
  ProgressBar bar_;
  Index done_ = 0;
};

// An answer's text without the space that encoding puts in front of it.
class AnswerText {
 public:
  AnswerText(const ChatTemplate& chat, const std::function<void(std::string_view)>& receiver)
      : receiver_(receiver), at_start_(chat.answers_begin_with_space()) {}

  void push(std::string_view text) {
    if (text.empty()) return;
    if (std::exchange(at_start_, false) && text.front() == ' ') text.remove_prefix(1);
    receiver_(text);
  }

 private:
  const std::function<void(std::string_view)>& receiver_;
  bool at_start_;
};

std::string per_second(Index tokens, double duration) {
  return duration > 0 ? str(", ", report::fixed(static_cast<double>(tokens) / duration, 1), " tokens/s") : "";
}

}  // namespace

Conversation::Conversation(const LoadedModel& loaded, const SamplerOptions& sampler, ConversationOptions options)
    : loaded_(loaded),
      options_(std::move(options)),
      template_(loaded.require_tokenizer(), options_.style ? *options_.style : loaded.chat_style().style),
      session_(loaded, {.kv_dtype = options_.kv_dtype}),
      sampler_(sampler),
      stop_ids_(loaded.config().eos_ids),
      routing_(loaded.config()) {
  // A style that was asked for ends answers in its own way, too.
  stop_ids_.push_back(template_.end_id());
  const ChatMessage probe[] = {{ChatRole::kSystem, options_.system}, {ChatRole::kUser, ""}};
  (void)template_.encode(probe);  // better now than at every turn
}

std::vector<TokenId> Conversation::ids() const {
  std::vector<ChatMessage> messages;
  if (!options_.system.empty()) messages.push_back({ChatRole::kSystem, options_.system});
  for (const Turn& turn : turns_) {
    messages.push_back({ChatRole::kUser, turn.text});
    messages.push_back({ChatRole::kAssistant, "", turn.answer});
  }
  messages.pop_back();  // the answer that is wanted
  return template_.encode(messages);
}

Answer Conversation::say(std::string text, const std::function<void(std::string_view)>& on_text) {
  turns_.push_back({std::move(text), {}});
  Figures figures;
  const auto settle = [&] {  // a turn without an answer would leave two of the user's in a row
    if (figures.drawn == 0) {
      turns_.pop_back();
    } else {
      last_ = figures;
    }
  };
  try {
    const StopReason reason = draw(turns_.back(), figures, on_text);
    settle();
    return {reason, figures.drawn};
  } catch (const Error& error) {
    settle();
    if (error.code() != ErrorCode::kCancelled) throw;
    return {StopReason::kCallback, figures.drawn};
  } catch (...) {
    settle();
    throw;
  }
}

StopReason Conversation::draw(Turn& turn, Figures& figures, const std::function<void(std::string_view)>& on_text) {
  const std::vector<TokenId> prompt = ids();
  const auto n = static_cast<Index>(prompt.size());
  require(n <= max_positions(), ErrorCode::kContextFull, "chat: with this message the conversation has ", n,
          " tokens, the context holds ", max_positions(), "; /reset begins anew");
  figures.kept = session_.set_tokens(prompt);
  figures.computed = n - figures.kept;

  Progress progress(options_.show_progress, figures.computed * loaded_.config().n_layers);
  Observers observers{&routing_, &progress};
  StepHooks hooks(&observers);
  hooks.cancel = options_.stop;
  AnswerText text(template_, on_text);
  const double begin = seconds();
  GenerateOptions settings;
  settings.max_tokens = options_.max_tokens;
  settings.stop_ids = stop_ids_;
  settings.on_token = [&](TokenId id, std::string_view more) {
    if (id >= 0) {
      turn.answer.push_back(id);
      const double since_begin = seconds() - begin;
      if (figures.drawn++ == 0) {
        progress.end_of_prompt();
        figures.prompt_seconds = since_begin;
      }
      figures.answer_seconds = since_begin - figures.prompt_seconds;
      figures.context = static_cast<Index>(session_.tokens().size());
    }
    text.push(more);
    return options_.stop == nullptr || !options_.stop->is_set();
  };
  const StopReason reason = generate(session_, sampler_, &loaded_.require_tokenizer(), settings, hooks).reason;
  if (reason == StopReason::kStopId) turn.answer.pop_back();  // the template writes its own
  return reason;
}

void Conversation::reset() {
  turns_.clear();
  sampler_.restart();
  routing_.reset();
  last_ = {};
}

std::string Conversation::stats() const {
  std::string out = str("context      ", last_.context, " of ", max_positions(), " tokens\n");
  if (last_.drawn == 0) return out + "no answer yet\n";
  out += str("last prompt  ", last_.kept + last_.computed, " tokens: ", last_.kept, " kept, ", last_.computed,
             " computed", per_second(last_.computed, last_.prompt_seconds), "\n");
  out += str("last answer  ", last_.drawn, " tokens", per_second(last_.drawn - 1, last_.answer_seconds), "\n");
  return out + report::routes_text(routing_);
}

}  // namespace mixtral::cli
