// A conversation with a model: its turns, what is computed of them, and figures about it.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/loaded_model.hpp"
#include "mixtral/runtime/generate.hpp"
#include "mixtral/runtime/routing_stats.hpp"
#include "mixtral/text/chat_template.hpp"

namespace mixtral::cli {

struct ConversationOptions {
  std::string system;              // empty: none
  std::optional<ChatStyle> style;  // default: the model's own
  Index max_tokens = 0;            // per answer
  DType kv_dtype = SessionOptions{}.kv_dtype;
  bool show_progress = false;        // a bar while a long prompt is read
  const CancelFlag* stop = nullptr;  // asked in each layer of a step, ends the answer
};

struct Answer {
  StopReason reason;  // kCallback: by the flag
  Index n_tokens;     // drawn; 0: stopped before the first one, and the turn is forgotten
};

class Conversation {
 public:
  // Throws Error if there is no tokenizer, if its vocabulary does not fit the template, or if the system text contains
  // one of the template's markers.
  Conversation(const LoadedModel& loaded, const SamplerOptions& sampler, ConversationOptions options);

  // Says `text` and passes the answer on while it is drawn. Throws what ChatTemplate, Session and `on_text` throw, and
  // Error(kContextFull). Whatever is thrown, the earlier turns stay, and so does this one as far as it was drawn.
  Answer say(std::string text, const std::function<void(std::string_view)>& on_text);

  // Begins anew: no turns, the random numbers from the seed. What is computed of the system text is kept.
  void reset();

  // Tokens of the context; speed and kept tokens of the last turn; each expert's share of the conversation.
  std::string stats() const;

  ChatStyle style() const noexcept { return template_.style(); }
  Index max_positions() const noexcept { return session_.max_positions(); }
  // After the last turn.
  Index n_tokens() const noexcept { return last_.context; }

 private:
  struct Turn {
    std::string text;
    std::vector<TokenId> answer;  // as drawn, without what ended it
  };
  struct Figures {
    Index context = 0, kept = 0, computed = 0, drawn = 0;
    double prompt_seconds = 0, answer_seconds = 0;  // until the first token; from the first to the last
  };

  std::vector<TokenId> ids() const;
  StopReason draw(Turn& turn, Figures& figures, const std::function<void(std::string_view)>& on_text);

  const LoadedModel& loaded_;
  ConversationOptions options_;
  ChatTemplate template_;
  Session session_;
  Sampler sampler_;
  std::vector<TokenId> stop_ids_;
  std::deque<Turn> turns_;
  Figures last_;
  RoutingStats routing_;
};

}  // namespace mixtral::cli
