#include "mixtral/text/chat_template.hpp"

#include <algorithm>
#include <utility>

#include "mixtral/core/error.hpp"

namespace mixtral {
namespace {

constexpr std::string_view kBegin = "[INST]", kEnd = "[/INST]";

// The control piece of that name, or -1.
TokenId control_id(const Vocabulary& v, std::string_view piece) {
  const auto found = std::find(v.pieces.begin(), v.pieces.end(), piece);
  if (found == v.pieces.end()) return -1;
  const auto id = found - v.pieces.begin();
  return v.types[static_cast<std::size_t>(id)] == PieceType::kControl ? static_cast<TokenId>(id) : -1;
}

// Where the first marker of `text` begins, from `from` on, or npos.
std::size_t find_marker(std::string_view text, std::size_t from = 0) {
  return std::min(text.find(kBegin, from), text.find(kEnd, from));
}

// A space behind the bracket of each marker. That is enough: a marker has no space inside, so one in the result would
// lie between two new spaces, would thus be a marker of `text`, and each of those has been cut.
std::string escaped(std::string_view text) {
  std::string out;
  for (std::size_t at; (at = find_marker(text)) != text.npos; text.remove_prefix(at + 1)) {
    out += text.substr(0, at + 1);
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

void check_roles(std::span<const ChatMessage> messages) {
  const std::size_t first = begins_with_system(messages) ? 1 : 0;
  for (std::size_t i = first; i < messages.size(); ++i) {
    const ChatRole wanted = (i - first) % 2 == 0 ? ChatRole::kUser : ChatRole::kAssistant;
    require(messages[i].role == wanted, "chat: message ", i, " has role ", static_cast<std::int32_t>(messages[i].role),
            " (", name_of(messages[i].role), "), expected ", static_cast<std::int32_t>(wanted), " (", name_of(wanted),
            ")");
  }
  require(messages.size() > first, "chat: ", messages.size(), " messages, message ", first, " has to be the user's");
}

}  // namespace

ChatTemplate::ChatTemplate(Tokenizer tokenizer, ChatStyle style, ForgedMarkers forged)
    : tokenizer_(std::move(tokenizer)),
      style_(style),
      forged_(forged),
      bos_(tokenizer_.vocabulary().bos_id),
      eos_(tokenizer_.vocabulary().eos_id) {
  require(style == ChatStyle::kV1 || style == ChatStyle::kV3, "chat: style ", static_cast<std::int32_t>(style),
          ", expected 1 or 3");
  require(forged == ForgedMarkers::kRefuse || forged == ForgedMarkers::kEscape, "chat: forged markers ",
          static_cast<std::int32_t>(forged), ", expected 0 or 1");
  require(bos_ >= 0 && eos_ >= 0, "chat: the vocabulary has BOS ", bos_, " and EOS ", eos_, ", both are needed");
  if (style == ChatStyle::kV3) {
    begin_ = control_id(tokenizer_.vocabulary(), kBegin);
    end_ = control_id(tokenizer_.vocabulary(), kEnd);
    require(begin_ >= 0 && end_ >= 0, "chat: style 3 needs the control pieces ", kBegin, " and ", kEnd,
            ", the vocabulary has ", begin_, " and ", end_);
    return;
  }
  // An unknown character would look like a part of every marker.
  for (const std::string_view marker : {kBegin, kEnd}) {
    const std::vector<TokenId> ids = tokenizer_.encode(marker);
    require(std::find(ids.begin(), ids.end(), tokenizer_.vocabulary().unk_id) == ids.end(),
            "chat: style 1 needs all characters of ", marker, " in the vocabulary");
  }
}

ChatStyle ChatTemplate::detect(const Vocabulary& vocabulary) {
  const bool has_both = control_id(vocabulary, kBegin) >= 0 && control_id(vocabulary, kEnd) >= 0;
  return has_both ? ChatStyle::kV3 : ChatStyle::kV1;
}

std::vector<TokenId> ChatTemplate::encode(std::span<const ChatMessage> messages) const {
  check_roles(messages);
  const bool has_system = begins_with_system(messages) && !messages[0].text.empty();
  const std::size_t first_user = begins_with_system(messages) ? 1 : 0;
  const std::size_t last_user = messages.size() - (messages.back().role == ChatRole::kUser ? 1 : 2);
  const std::size_t with_system = style_ == ChatStyle::kV1 ? first_user : last_user;

  std::vector<TokenId> ids = {bos_};
  for (std::size_t i = first_user; i < messages.size(); ++i) {
    if (messages[i].role == ChatRole::kUser) {
      const std::string text = text_of(messages, i);
      append_user(has_system && i == with_system ? text_of(messages, 0) + "\n\n" + text : text, ids);
      continue;
    }
    const std::span<const TokenId> drawn = messages[i].ids;
    for (const TokenId id : drawn) require(id >= 0, "chat: message ", i, " has id ", id);
    if (drawn.empty()) append(text_of(messages, i), ids);
    ids.insert(ids.end(), drawn.begin(), drawn.end());
    if (drawn.empty() || drawn.back() != eos_) ids.push_back(eos_);
  }
  return ids;
}

// The text of message i, in which no marker is left.
std::string ChatTemplate::text_of(std::span<const ChatMessage> messages, std::size_t i) const {
  const std::string_view text = messages[i].text;
  const std::size_t at = style_ == ChatStyle::kV1 ? find_marker(text) : text.npos;
  if (at == text.npos) return std::string(text);
  if (forged_ == ForgedMarkers::kEscape) return escaped(text);
  fail(ErrorCode::kInvalidArgument, "chat: message ", i, " (", name_of(messages[i].role), ") contains ",
       text.substr(at).starts_with(kBegin) ? kBegin : kEnd, " at byte ", at, ", which would ",
       text.substr(at).starts_with(kBegin) ? "begin" : "end", " a turn");
}

// Between our markers and the text stands a space, so no marker can arise there: it has none inside.
void ChatTemplate::append_user(std::string_view text, std::vector<TokenId>& ids) const {
  if (style_ == ChatStyle::kV1) return append(str(kBegin, ' ', text, ' ', kEnd), ids);
  ids.push_back(begin_);
  append(text, ids);
  ids.push_back(end_);
}

void ChatTemplate::append(std::string_view text, std::vector<TokenId>& ids) const {
  const std::vector<TokenId> more = tokenizer_.encode(text);
  ids.insert(ids.end(), more.begin(), more.end());
}

}  // namespace mixtral
