#include "mixtral/text/chat_template.hpp"

#include <algorithm>
#include <utility>

#include "core/json.hpp"
#include "mixtral/core/error.hpp"

namespace mixtral {
namespace {

// The markers of a user's turn in Mistral's styles, of any turn in ChatML.
constexpr std::string_view kInst[] = {"[INST]", "[/INST]"}, kIm[] = {"<|im_start|>", "<|im_end|>"};

// The control piece of that name, or -1.
TokenId control_id(const Vocabulary& v, std::string_view piece) {
  const TokenId id = v.find(piece);
  return id >= 0 && v.types[static_cast<std::size_t>(id)] == PieceType::kControl ? id : -1;
}

// The added token of that name, or a control piece; -1: neither.
TokenId token_id(const Vocabulary& v, std::string_view piece) {
  const TokenId id = v.find(piece);
  const bool added = std::any_of(v.added.begin(), v.added.end(), [&](const AddedToken& t) { return t.id == id; });
  return id >= 0 && added ? id : control_id(v, piece);
}

void require_markers(std::string_view style_needs, const std::string_view (&markers)[2], TokenId begin, TokenId end) {
  require(begin >= 0 && end >= 0, "chat: style ", style_needs, " ", markers[0], " and ", markers[1],
          ", the vocabulary has no such ", markers[begin < 0 ? 0 : 1]);
}

bool has_inst_pieces(const Vocabulary& v) { return control_id(v, kInst[0]) >= 0 && control_id(v, kInst[1]) >= 0; }

// The first of the markers in a text.
struct Found {
  std::size_t at = std::string_view::npos;
  std::string_view marker;
};
Found find_marker(std::string_view text, std::span<const std::string_view> markers) {
  Found first;
  for (const std::string_view marker : markers) {
    const std::size_t at = text.find(marker);
    if (at < first.at) first = {at, marker};
  }
  return first;
}

// A space behind the first character of each marker. That is enough: a marker has no space inside, so one in the result
// would lie between two new spaces, would thus be a marker of `text`, and each of those has been cut.
std::string escaped(std::string_view text, std::span<const std::string_view> markers) {
  std::string out;
  for (Found found; (found = find_marker(text, markers)).at != text.npos; text.remove_prefix(found.at + 1)) {
    out += text.substr(0, found.at + 1);
    out += ' ';
  }
  return out += text;
}

std::string_view name_of(ChatRole role) {
  switch (role) {
    case ChatRole::kSystem: return "system";
    case ChatRole::kUser: return "user";
    case ChatRole::kAssistant: return "assistant";
  }
  return "unknown";
}

bool begins_with_system(std::span<const ChatMessage> messages) {
  return !messages.empty() && messages[0].role == ChatRole::kSystem;
}

// Whether a message may be number i of a conversation.
void check_message(const ChatMessage& message, std::size_t i, bool has_system, Index n_ids) {
  const std::size_t first = has_system ? 1 : 0;
  if (i < first) return;
  const ChatRole role = message.role, wanted = (i - first) % 2 == 0 ? ChatRole::kUser : ChatRole::kAssistant;
  require(role == wanted, "chat: message ", i, " has role ", static_cast<std::int32_t>(role), " (", name_of(role),
          "), expected ", static_cast<std::int32_t>(wanted), " (", name_of(wanted), ")");
  for (const TokenId id : message.ids) {
    require(id >= 0 && (n_ids == 0 || id < n_ids), "chat: message ", i, " has id ", id, ", outside the vocabulary of ",
            n_ids);
  }
}

std::string names_of_styles() {
  std::string names;
  for (const ChatStyle style : kChatStyles) names += str(names.empty() ? "" : ", ", name_of(style));
  return names;
}

}  // namespace

std::string_view name_of(ChatStyle style) noexcept {
  switch (style) {
    case ChatStyle::kV1: return "v1";
    case ChatStyle::kV3: return "v3";
    case ChatStyle::kChatMl: return "chatml";
  }
  return "unknown";
}

ChatStyleChoice choose_chat_style(const std::optional<std::string>& chat_template, const Vocabulary& vocabulary,
                                  std::string_view where) {
  const bool pieces = has_inst_pieces(vocabulary);
  const ChatStyle by_vocabulary = pieces ? ChatStyle::kV3 : ChatStyle::kV1;
  const std::string why = str("[INST] and [/INST] are ", pieces ? "" : "no ", "control pieces of the vocabulary");
  if (!chat_template) return {by_vocabulary, str("no chat_template, and ", why)};
  const auto has = [&](std::string_view text) { return chat_template->find(text) != std::string::npos; };
  if (has(kIm[0])) return {ChatStyle::kChatMl, str("chat_template has ", kIm[0])};
  // Llama-2's template has [INST], too, and puts the system's text between marks of its own.
  if (has(kInst[0]) && !has("<<SYS>>")) return {by_vocabulary, str("chat_template has [INST], and ", why)};
  const std::string_view line = std::string_view(*chat_template).substr(0, chat_template->find('\n'));
  fail(ErrorCode::kUnsupported, where, ": the chat_template is of no known style; it begins ", json::quote(line),
       ". Name a style yourself: ", names_of_styles());
}

ChatTemplate::ChatTemplate(Tokenizer tokenizer, ChatStyle style, ForgedMarkers forged)
    : tokenizer_(std::move(tokenizer)),
      style_(style),
      forged_(forged),
      bos_(tokenizer_.vocabulary().bos_id),
      eos_(tokenizer_.vocabulary().eos_id),
      end_of_answer_(eos_) {
  const Vocabulary& v = tokenizer_.vocabulary();
  require(std::find(std::begin(kChatStyles), std::end(kChatStyles), style) != std::end(kChatStyles), "chat: style ",
          static_cast<std::int32_t>(style), ", expected 1, 3 or 100");
  require(forged == ForgedMarkers::kRefuse || forged == ForgedMarkers::kEscape, "chat: forged markers ",
          static_cast<std::int32_t>(forged), ", expected 0 or 1");
  if (style == ChatStyle::kChatMl) {
    begin_ = token_id(v, kIm[0]);
    end_ = end_of_answer_ = token_id(v, kIm[1]);
    require_markers("chatml needs the tokens", kIm, begin_, end_);
    for (const AddedToken& token : v.added) {  // those that are found in any text
      if (!token.special && token.id == begin_) forgeable_.push_back(kIm[0]);
      if (!token.special && token.id == end_) forgeable_.push_back(kIm[1]);
    }
    return;
  }
  require(bos_ >= 0 && eos_ >= 0, "chat: the vocabulary has no ", bos_ < 0 ? "BOS" : "EOS",
          " token, which every turn needs");
  if (style == ChatStyle::kV3) {
    begin_ = control_id(v, kInst[0]);
    end_ = control_id(v, kInst[1]);
    require_markers("3 needs the control pieces", kInst, begin_, end_);
    return;
  }
  forgeable_.assign(std::begin(kInst), std::end(kInst));
  // An unknown character would look like a part of every marker.
  for (const std::string_view marker : kInst) {
    const std::vector<TokenId> ids = tokenizer_.encode(marker);
    require(std::find(ids.begin(), ids.end(), v.unk_id) == ids.end(), "chat: style 1 needs all characters of ", marker,
            " in the vocabulary");
  }
}

bool ChatTemplate::answers_begin_with_space() const noexcept {
  return style_ != ChatStyle::kChatMl && tokenizer_.vocabulary().space_prefix != SpacePrefix::kNone;
}

std::vector<TokenId> ChatTemplate::encode(std::span<const ChatMessage> messages) const {
  const std::size_t first = begins_with_system(messages) ? 1 : 0;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    check_message(messages[i], i, first == 1, tokenizer_.vocabulary().n_ids);
  }
  require(messages.size() > first, "chat: ", messages.size(), " messages, message ", first, " has to be the user's");
  return style_ == ChatStyle::kChatMl ? encode_chatml(messages) : encode_mistral(messages);
}

void ChatTemplate::check(const ChatMessage& message, std::size_t index, bool has_system) const {
  check_message(message, index, has_system, tokenizer_.vocabulary().n_ids);
  if (message.role != ChatRole::kAssistant || message.ids.empty()) (void)text_of(message, index);
}

std::vector<TokenId> ChatTemplate::encode_mistral(std::span<const ChatMessage> messages) const {
  const bool has_system = begins_with_system(messages) && !messages[0].text.empty();
  const std::size_t first_user = begins_with_system(messages) ? 1 : 0;
  const std::size_t last_user = messages.size() - (messages.back().role == ChatRole::kUser ? 1 : 2);
  const std::size_t with_system = style_ == ChatStyle::kV1 ? first_user : last_user;

  std::vector<TokenId> ids = {bos_};
  for (std::size_t i = first_user; i < messages.size(); ++i) {
    if (messages[i].role == ChatRole::kUser) {
      const std::string text = text_of(messages[i], i);
      append_user(has_system && i == with_system ? text_of(messages[0], 0) + "\n\n" + text : text, ids);
      continue;
    }
    if (messages[i].ids.empty()) append(text_of(messages[i], i), ids);
    append_answer(messages[i].ids, ids);
  }
  return ids;
}

// Between our markers and the text stands a space, so no marker can arise there: it has none inside.
void ChatTemplate::append_user(std::string_view text, std::vector<TokenId>& ids) const {
  if (style_ == ChatStyle::kV1) return append(str(kInst[0], ' ', text, ' ', kInst[1]), ids);
  ids.push_back(begin_);
  append(text, ids);
  ids.push_back(end_);
}

// What stands between two tokens is encoded together, as it is when a whole conversation is read at once. No marker can
// arise where the role and the text meet: it has no line end inside.
std::vector<TokenId> ChatTemplate::encode_chatml(std::span<const ChatMessage> messages) const {
  std::vector<TokenId> ids;
  if (tokenizer_.vocabulary().add_bos && bos_ >= 0) ids.push_back(bos_);
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role == ChatRole::kSystem && message.text.empty()) continue;
    ids.push_back(begin_);
    const std::span<const TokenId> drawn =
        message.role == ChatRole::kAssistant ? message.ids : std::span<const TokenId>();
    append_more(str(name_of(message.role), '\n', drawn.empty() ? text_of(messages[i], i) : ""), ids);
    append_answer(drawn, ids);
    append_more("\n", ids);
  }
  if (messages.back().role != ChatRole::kUser) return ids;
  ids.push_back(begin_);
  append_more(str(name_of(ChatRole::kAssistant), '\n'), ids);
  return ids;
}

// Ids that were drawn, perhaps none, and what ends them, once.
void ChatTemplate::append_answer(std::span<const TokenId> drawn, std::vector<TokenId>& ids) const {
  if (!drawn.empty() && (drawn.back() == end_of_answer_ || drawn.back() == eos_)) drawn = drawn.first(drawn.size() - 1);
  ids.insert(ids.end(), drawn.begin(), drawn.end());
  ids.push_back(end_of_answer_);
}

// The text of message i, in which no marker is left.
std::string ChatTemplate::text_of(const ChatMessage& message, std::size_t i) const {
  const std::string_view text = message.text;
  const auto [at, marker] = find_marker(text, forgeable_);
  if (at == text.npos) return std::string(text);
  if (forged_ == ForgedMarkers::kEscape) return escaped(text, forgeable_);
  const bool begins = marker == kInst[0] || marker == kIm[0];
  fail(ErrorCode::kInvalidArgument, "chat: message ", i, " (", name_of(message.role), ") contains ", marker,
       " at byte ", at, ", which would ", begins ? "begin" : "end", " a turn");
}

void ChatTemplate::append(std::string_view text, std::vector<TokenId>& ids) const {
  const std::vector<TokenId> more = tokenizer_.encode(text);
  ids.insert(ids.end(), more.begin(), more.end());
}

void ChatTemplate::append_more(std::string_view text, std::vector<TokenId>& ids) const {
  const std::vector<TokenId> more = tokenizer_.encode_more(text);
  ids.insert(ids.end(), more.begin(), more.end());
}

}  // namespace mixtral
