// Conversations to token ids, as the Instruct models of the Mixtral family have learnt them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/text/tokenizer.hpp"

namespace mixtral {

// Pinned.
enum class ChatRole : std::int32_t { kSystem = 0, kUser = 1, kAssistant = 2 };

// Pinned: the numbers of Mistral's tokenizers.
//   kV1 (8x7B)    BOS; per user "[INST] text [/INST]", encoded as text; per answer its text, encoded alone, and EOS.
//                 A system message and two line ends stand before the first user's text.
//   kV3 (8x22B)   BOS; per user the control piece [INST], the text, encoded alone, the control piece [/INST]; per
//                 answer as in kV1. A system message and two line ends stand before the last user's text.
enum class ChatStyle : std::int32_t { kV1 = 1, kV3 = 3 };

// What becomes of "[INST]" and "[/INST]" inside a message's text where they are ordinary text, kV1, so that whoever
// wrote the message could end the turn and speak for somebody else. In kV3 no text makes control pieces. Pinned.
enum class ForgedMarkers : std::int32_t {
  kRefuse = 0,  // an Error that names the message and the marker
  kEscape = 1,  // a space behind the bracket: "[ INST]", "[ /INST]"
};

struct ChatMessage {
  ChatRole role;
  std::string_view text;
  // An assistant's answer as it was drawn, with or without its EOS. If there are any they are used in place of
  // `text`, unchanged, even if the model wrote a marker: encoding the answer's text could give other ids, and what was
  // computed would be lost. Ids beyond the pieces, with which some models pad their vocabulary, pass.
  std::span<const TokenId> ids = {};
};

// Immutable, as the tokenizer is.
class ChatTemplate {
 public:
  // Throws Error(kInvalidArgument) if the vocabulary lacks BOS, EOS, the control pieces (kV3) or characters of the
  // markers (kV1).
  ChatTemplate(Tokenizer tokenizer, ChatStyle style, ForgedMarkers forged = ForgedMarkers::kRefuse);

  // kV3 if [INST] and [/INST] are control pieces, otherwise kV1.
  static ChatStyle detect(const Vocabulary& vocabulary);

  // The ids of a whole conversation: perhaps a system message (an empty one counts as none), then user and assistant
  // in turns. BOS stands once, at the front. In kV1 a longer conversation begins with the ids of a shorter one that
  // it continues; in kV3 as well, unless there is a system message, which moves. Throws Error(kInvalidArgument) that
  // names the message by its index.
  std::vector<TokenId> encode(std::span<const ChatMessage> messages) const;

  ChatStyle style() const noexcept { return style_; }

 private:
  std::string text_of(std::span<const ChatMessage> messages, std::size_t i) const;
  void append_user(std::string_view text, std::vector<TokenId>& ids) const;
  void append(std::string_view text, std::vector<TokenId>& ids) const;

  Tokenizer tokenizer_;
  ChatStyle style_;
  ForgedMarkers forged_;
  TokenId bos_, eos_;
  TokenId begin_ = -1, end_ = -1;  // [INST] and [/INST]; kV3
};

}  // namespace mixtral
