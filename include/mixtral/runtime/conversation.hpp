// A conversation with an Instruct model: its messages, and answers that compute only what is new. (In style v3 a system
// text stands before the last of the user's texts: what follows its old place is computed again.)
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/runtime/generate.hpp"
#include "mixtral/runtime/loaded_model.hpp"
#include "mixtral/runtime/sampler.hpp"
#include "mixtral/runtime/session.hpp"
#include "mixtral/text/chat_template.hpp"

namespace mixtral {

struct ConversationOptions {
  std::optional<ChatStyle> style = {};  // default: the model's own
  ForgedMarkers forged = ForgedMarkers::kRefuse;
};

struct Answer {
  std::string text;
  StopReason reason = StopReason::kMaxTokens;
  Index n_prompt = 0;  // tokens before the answer
  Index n_kept = 0;    // of these, not computed again
  Index n_tokens = 0;  // drawn, with the one that ended the answer
};

// A value: a copy goes on on its own, say in a copy of the session. The model must outlive it, where it is. Callbacks
// of an answer must not change the conversation.
class Conversation {
 public:
  struct Message {
    ChatRole role;
    std::string text;
    // An answer as it was drawn, without what ended it: used in place of `text`. (Of a stop string that begins within a
    // token, that part stays.)
    std::vector<TokenId> ids = {};
  };

  // Throws what LoadedModel::chat_style() and ChatTemplate throw.
  explicit Conversation(const LoadedModel& model, const ConversationOptions& options = {});

  // Adds a message that is known: the system's text, a turn from earlier, a question for answer(). Throws
  // Error(kInvalidArgument) that names it by its index if it is not its turn, contains a forged marker or ids outside
  // the vocabulary, or has ids and is no answer; then nothing has changed.
  void add(Message message);

  // Draws the answer to the user's message at the end and adds it. The session, of the same model, gets the
  // conversation's tokens (Session::set_tokens), so what it has computed of them is not computed again; it may be
  // another one each time, and may have done other things meanwhile. `options.stop_ids` are added to what ends an
  // answer in this style; `options.on_token` gets the text without the space that encoding puts in front.
  // Throws Error(kInvalidArgument) if the last message is not the user's or the options are not valid,
  // Error(kContextFull) with the numbers if the tokens do not fit; then nothing has changed, the session neither. And
  // what generate() throws. Whatever is thrown, the earlier messages stay, and of the answer what was drawn; if that is
  // nothing, no message is added. (An answer that is nothing but the token that ends it is one.)
  Answer answer(Session& session, Sampler& sampler, const GenerateOptions& options, const StepHooks& hooks = {});

  // add({kUser, text}) and answer(). If nothing was drawn, by an error or a stop, `text` is forgotten: there are never
  // two messages of the user's in a row.
  Answer say(Session& session, Sampler& sampler, std::string text, const GenerateOptions& options,
             const StepHooks& hooks = {});

  // Forgets all messages but the first n. Throws Error(kInvalidArgument) if there are fewer.
  void keep(std::size_t n);

  std::span<const Message> messages() const noexcept { return messages_; }
  // All messages as the model reads them, at the end the beginning of an answer if one is to follow. Throws
  // Error(kInvalidArgument) if the user has said nothing.
  std::vector<TokenId> ids() const;
  ChatStyle style() const noexcept { return template_.style(); }

 private:
  const LoadedModel* loaded_;
  ChatTemplate template_;
  std::vector<Message> messages_;
};

}  // namespace mixtral
