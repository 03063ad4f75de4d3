// Conversations: their token ids, and those that a session holds.
#include <algorithm>
#include <iterator>
#include <string>

#include "generating.hpp"
#include "handles.hpp"
#include "mixtral/runtime/conversation.hpp"
#include "options.hpp"

using namespace mixtral;
using namespace mixtral::capi;

namespace {

// The messages behind an array of structs of any version.
std::vector<ChatMessage> read_messages(const mixtral_chat_message* messages, std::size_t n) {
  std::vector<ChatMessage> out;
  if (n == 0) return out;
  require(messages != nullptr, "messages is NULL but there are ", n, " of them");
  const std::size_t stride = messages->struct_size;
  require_struct(messages, "message 0");
  require(stride % alignof(mixtral_chat_message) == 0, "message 0: struct_size ", stride, " is no multiple of ",
          alignof(mixtral_chat_message));
  const auto* bytes = reinterpret_cast<const unsigned char*>(messages);
  for (std::size_t i = 0; i < n; ++i) {
    const auto* at = reinterpret_cast<const mixtral_chat_message*>(bytes + i * stride);
    const std::string name = str("message ", i);
    require(at->struct_size == stride, name, ": struct_size is ", at->struct_size, ", that of message 0 is ", stride);
    const mixtral_chat_message m = read_struct(at, mixtral_chat_message{}, name.c_str());
    require(m.role >= MIXTRAL_ROLE_SYSTEM && m.role <= MIXTRAL_ROLE_ASSISTANT, name, ": role is ", m.role,
            ", expected 0 to 2");
    const auto tokens = input(m.tokens, m.n_tokens, name.c_str());
    out.push_back({static_cast<ChatRole>(m.role), input_text(m.text, m.text_size, name.c_str()), tokens});
  }
  return out;
}

ChatStyle style_of(std::int32_t style, const LoadedModel& model) {
  if (style == MIXTRAL_CHAT_AUTO) return model.chat_style().style;
  const auto named = static_cast<ChatStyle>(style);
  require(std::find(std::begin(kChatStyles), std::end(kChatStyles), named) != std::end(kChatStyles), "chat: style is ",
          style, ", expected 0, 1, 3 or 100");
  return named;
}

ForgedMarkers forged_of(std::uint32_t flags) {
  require_flags(flags, MIXTRAL_CHAT_ESCAPE, "chat");
  return (flags & MIXTRAL_CHAT_ESCAPE) != 0 ? ForgedMarkers::kEscape : ForgedMarkers::kRefuse;
}

Conversation& chat_of(mixtral_session& s) {
  require(s.chat.has_value(), "chat: the session has no conversation, mixtral_chat_begin() begins one");
  return *s.chat;
}

const Conversation::Message& message_of(mixtral_session& s, std::size_t index) {
  const auto messages = chat_of(s).messages();
  require(index < messages.size(), "chat: message ", index, " of ", messages.size());
  return messages[index];
}

// Draws an answer by draw(options, hooks).
template <class F>
void answering(mixtral_session& s, const mixtral_generate_params* params, mixtral_generate_result* result, F&& draw) {
  const ResultPlace place(result);
  const GenerateOptions options = read_generate(s, params);
  require(params == nullptr || (params->flags & MIXTRAL_GENERATE_IGNORE_EOS) == 0,
          "chat: an answer ends with its end token, so MIXTRAL_GENERATE_IGNORE_EOS has no meaning");
  evaluating(s, [&](const StepHooks& hooks) {
    const Answer answer = draw(options, hooks);
    place.write(answer.reason, answer.n_tokens, answer.n_prompt, answer.n_kept);
  });
}

}  // namespace

mixtral_status mixtral_chat_tokens(const mixtral_ctx* ctx, int32_t style, uint32_t flags,
                                   const mixtral_chat_message* messages, size_t n_messages, int32_t* tokens,
                                   size_t capacity, size_t* n_tokens) {
  return guarded([&] {
    const Engine& engine = engine_of(ctx);
    const Tokenizer& tokenizer = engine.model.require_tokenizer();
    const Output out(tokens, capacity, n_tokens, "tokens");
    const ChatTemplate chat(tokenizer, style_of(style, engine.model), forged_of(flags));
    out.write(chat.encode(read_messages(messages, n_messages)));
  });
}

mixtral_status mixtral_chat_begin(mixtral_session* session, int32_t style, uint32_t flags) {
  return with_session(session, [&](mixtral_session& s) {
    const LoadedModel& model = s.engine->model;
    (void)model.require_tokenizer();  // the first thing to say, as mixtral_chat_tokens() does
    const ForgedMarkers forged = forged_of(flags);
    s.chat = Conversation(model, {.style = style_of(style, model), .forged = forged});
  });
}

mixtral_status mixtral_chat_add(mixtral_session* session, const mixtral_chat_message* messages, size_t n_messages) {
  return with_session(session, [&](mixtral_session& s) {
    Conversation& chat = chat_of(s);
    const std::size_t before = chat.messages().size();
    try {
      for (const ChatMessage& m : read_messages(messages, n_messages)) {
        chat.add({m.role, std::string(m.text), {m.ids.begin(), m.ids.end()}});
      }
    } catch (...) {
      chat.keep(before);
      throw;
    }
  });
}

mixtral_status mixtral_chat_answer(mixtral_session* session, const mixtral_generate_params* params,
                                   mixtral_generate_result* result) {
  return with_session(session, [&](mixtral_session& s) {
    Conversation& chat = chat_of(s);
    answering(s, params, result, [&](const GenerateOptions& options, const StepHooks& hooks) {
      return chat.answer(s.session, s.sampler, options, hooks);
    });
  });
}

mixtral_status mixtral_chat_say(mixtral_session* session, const char* text, size_t text_size,
                                const mixtral_generate_params* params, mixtral_generate_result* result) {
  return with_session(session, [&](mixtral_session& s) {
    Conversation& chat = chat_of(s);
    const std::string_view words = input_text(text, text_size, "text");
    answering(s, params, result, [&](const GenerateOptions& options, const StepHooks& hooks) {
      return chat.say(s.session, s.sampler, std::string(words), options, hooks);
    });
  });
}

mixtral_status mixtral_chat_message_text(mixtral_session* session, size_t index, int32_t* role, char* text,
                                         size_t capacity, size_t* text_size) {
  return with_session(session, [&](mixtral_session& s) {
    const Output out(text, capacity, text_size, "text");
    const Conversation::Message& message = message_of(s, index);
    out.write(message.text);
    if (role != nullptr) *role = static_cast<std::int32_t>(message.role);
  });
}

mixtral_status mixtral_chat_message_tokens(mixtral_session* session, size_t index, int32_t* tokens, size_t capacity,
                                           size_t* n_tokens) {
  return with_session(session, [&](mixtral_session& s) {
    const Output out(tokens, capacity, n_tokens, "tokens");
    out.write(message_of(s, index).ids);
  });
}

mixtral_status mixtral_chat_keep(mixtral_session* session, size_t n_messages) {
  return with_session(session, [&](mixtral_session& s) { chat_of(s).keep(n_messages); });
}
