#include "mixtral/runtime/conversation.hpp"

#include <algorithm>
#include <utility>

namespace mixtral {

Conversation::Conversation(const LoadedModel& model, const ConversationOptions& options)
    : loaded_(&model),
      template_(model.require_tokenizer(), options.style ? *options.style : model.chat_style().style, options.forged) {}

void Conversation::add(Message message) {
  const std::size_t n = messages_.size();
  require(message.role == ChatRole::kAssistant || message.ids.empty(), "chat: message ", n,
          " has ids, as only answers have them");
  const ChatRole first = n == 0 ? message.role : messages_.front().role;
  template_.check({message.role, message.text, message.ids}, n, first == ChatRole::kSystem);
  messages_.push_back(std::move(message));
}

Answer Conversation::answer(Session& session, Sampler& sampler, const GenerateOptions& options,
                            const StepHooks& hooks) {
  require(&session.model() == &loaded_->model(), "chat: the session is of another model than the conversation");
  require(!messages_.empty() && messages_.back().role == ChatRole::kUser, "chat: the last of ", messages_.size(),
          " messages has to be the user's");
  options.validate();
  const std::vector<TokenId> prompt = ids();
  if (hooks.cancel != nullptr) hooks.cancel->check();  // a long text takes its time, too
  Answer result;
  result.n_prompt = static_cast<Index>(prompt.size());
  require(result.n_prompt <= session.max_positions(), ErrorCode::kContextFull,
          "chat: with this message the conversation has ", result.n_prompt, " tokens, the context holds ",
          session.max_positions());

  GenerateOptions settings = options;
  settings.stop_ids.insert(settings.stop_ids.end(), loaded_->config().eos_ids.begin(), loaded_->config().eos_ids.end());
  settings.stop_ids.push_back(template_.end_id());  // a style that was asked for may end in its own way
  const bool has_space = template_.answers_begin_with_space();
  bool at_space = has_space;
  settings.on_token = [&](TokenId id, std::string_view text) {
    if (!text.empty() && std::exchange(at_space, false) && text.front() == ' ') text.remove_prefix(1);
    return !options.on_token || options.on_token(id, text);
  };
  if (messages_.size() == messages_.capacity())
    messages_.reserve(2 * messages_.size());  // what is drawn must not get lost
  result.n_kept = session.set_tokens(prompt);
  GenerateResult drawn;
  const auto add_drawn = [&] {
    if (drawn.ids.empty()) return;
    drawn.ids.resize(static_cast<std::size_t>(drawn.n_text));  // the template writes its own end
    if (has_space && drawn.text.starts_with(' ')) drawn.text.erase(0, 1);
    messages_.push_back({ChatRole::kAssistant, std::move(drawn.text), std::move(drawn.ids)});
  };
  try {
    generate(session, sampler, &loaded_->require_tokenizer(), settings, hooks, drawn);
  } catch (...) {
    add_drawn();
    throw;
  }
  result.reason = drawn.reason;
  result.n_tokens = static_cast<Index>(drawn.ids.size());
  add_drawn();
  if (result.n_tokens > 0) result.text = messages_.back().text;
  return result;
}

Answer Conversation::say(Session& session, Sampler& sampler, std::string text, const GenerateOptions& options,
                         const StepHooks& hooks) {
  const std::size_t before = messages_.size();
  add({ChatRole::kUser, std::move(text)});
  const auto forget_unanswered = [&] {
    if (messages_.size() == before + 1) messages_.pop_back();
  };
  try {
    Answer result = answer(session, sampler, options, hooks);
    forget_unanswered();
    return result;
  } catch (...) {
    forget_unanswered();
    throw;
  }
}

void Conversation::keep(std::size_t n) {
  require(n <= messages_.size(), "chat: keep ", n, " messages of ", messages_.size());
  messages_.erase(messages_.begin() + static_cast<std::ptrdiff_t>(n), messages_.end());
}

std::vector<TokenId> Conversation::ids() const {
  std::vector<ChatMessage> views;
  views.reserve(messages_.size());
  for (const auto& [role, text, ids] : messages_) views.push_back({role, text, ids});
  return template_.encode(views);
}

}  // namespace mixtral
