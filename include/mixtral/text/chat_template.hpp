// Conversations to token ids, as the Instruct models of the Mixtral family have learnt them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/text/tokenizer.hpp"

namespace mixtral {

// Pinned.
enum class ChatRole : std::int32_t { kSystem = 0, kUser = 1, kAssistant = 2 };

// Pinned: the numbers of Mistral's tokenizers; those of others begin at 100.
//   kV1 (8x7B)    BOS; per user "[INST] text [/INST]", encoded as text; per answer its text, encoded alone, and EOS.
//                 A system message and two line ends stand before the first user's text.
//   kV3 (8x22B)   BOS; per user the control piece [INST], the text, encoded alone, the control piece [/INST]; per
//                 answer as in kV1. A system message and two line ends stand before the last user's text.
//   kChatMl       BOS where the vocabulary wants it; per message the token <|im_start|>, "role\ntext" encoded together,
//                 the token <|im_end|>, and a line end. Before an answer <|im_start|> and "assistant\n".
enum class ChatStyle : std::int32_t { kV1 = 1, kV3 = 3, kChatMl = 100 };

// "v1", "v3", "chatml".
std::string_view name_of(ChatStyle style) noexcept;
inline constexpr ChatStyle kChatStyles[] = {ChatStyle::kV1, ChatStyle::kV3, ChatStyle::kChatMl};

struct ChatStyleChoice {
  ChatStyle style;
  std::string why;  // "chat_template of the model", "no chat_template: [INST] is a control piece", ...
};

// The style of a model: found by the markers in its template (Jinja), where it has one, otherwise by its vocabulary:
// kV3 if [INST] and [/INST] are control pieces, else kV1. Throws Error(kUnsupported) about a template that is none of
// the styles', with its first line and the styles' names; `where` begins the message.
ChatStyleChoice choose_chat_style(const std::optional<std::string>& chat_template, const Vocabulary& vocabulary,
                                  std::string_view where);

// What becomes of a style's markers inside a message's text, where they would be taken for the style's own, so that
// whoever wrote the message could end the turn and speak for somebody else: [INST] and [/INST] in kV1, in kChatMl
// <|im_start|> and <|im_end|> if they are tokens that are not special. Otherwise no text makes a marker. Pinned.
enum class ForgedMarkers : std::int32_t {
  kRefuse = 0,  // an Error that names the message and the marker
  kEscape = 1,  // a space behind the first character: "[ INST]", "[ /INST]", "< |im_end|>"
};

struct ChatMessage {
  ChatRole role;
  std::string_view text;
  // An assistant's answer as it was drawn, with or without the token that ended it. If there are any they are used in
  // place of `text`, unchanged, even if the model wrote a marker: encoding the answer's text could give other ids, and
  // what was computed would be lost. Ids beyond the pieces, with which some models pad their vocabulary, pass.
  std::span<const TokenId> ids = {};
};

// Immutable, as the tokenizer is.
class ChatTemplate {
 public:
  // Throws Error(kInvalidArgument) if the vocabulary lacks BOS, EOS (kV1, kV3), the tokens of the markers (kV3,
  // kChatMl) or characters of the markers (kV1).
  ChatTemplate(Tokenizer tokenizer, ChatStyle style, ForgedMarkers forged = ForgedMarkers::kRefuse);

  // The ids of a whole conversation: perhaps a system message (an empty one counts as none), then user and assistant
  // in turns. BOS stands once, at the front. A longer conversation begins with the ids of a shorter one that it
  // continues, if answers are given as ids; but in kV3 not if there is a system message, which moves. Throws
  // Error(kInvalidArgument) that names the message by its index.
  std::vector<TokenId> encode(std::span<const ChatMessage> messages) const;
  // Throws what encode() would say about one message, if those before it are in order.
  void check(const ChatMessage& message, std::size_t index, bool has_system) const;

  ChatStyle style() const noexcept { return style_; }
  // The token that ends an answer: EOS, or <|im_end|>.
  TokenId end_id() const noexcept { return end_of_answer_; }
  // Whether an answer's text begins with a space that is not the answer's own.
  bool answers_begin_with_space() const noexcept;

 private:
  std::vector<TokenId> encode_mistral(std::span<const ChatMessage> messages) const;
  std::vector<TokenId> encode_chatml(std::span<const ChatMessage> messages) const;
  std::string text_of(const ChatMessage& message, std::size_t i) const;
  void append_user(std::string_view text, std::vector<TokenId>& ids) const;
  void append_answer(std::span<const TokenId> drawn, std::vector<TokenId>& ids) const;
  void append(std::string_view text, std::vector<TokenId>& ids) const;
  void append_more(std::string_view text, std::vector<TokenId>& ids) const;

  Tokenizer tokenizer_;
  ChatStyle style_;
  ForgedMarkers forged_;
  TokenId bos_, eos_;
  TokenId begin_ = -1, end_ = -1;  // the markers' tokens; kV3, kChatMl
  TokenId end_of_answer_;
  std::vector<std::string_view> forgeable_;  // markers that a text could make
};

}  // namespace mixtral
