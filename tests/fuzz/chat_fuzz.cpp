// Conversations of any texts: whatever stands in the messages, the markers in the result are those of the turns.
#include "mixtral/text/chat_template.hpp"

#include <array>
#include <limits>
#include <string>
#include <vector>

#include "bytes.hpp"
#include "expect.hpp"
#include "mixtral/core/error.hpp"
#include "support/tokenizer_files.hpp"

using namespace mixtral;

namespace {

constexpr std::string_view kMarkers[] = {"[INST]", "[/INST]"};
constexpr std::array<TokenId, 2> kMarkerIds = {4, 5};

Tokenizer make_tokenizer(PieceType markers) {
  Vocabulary v = test::small_vocabulary({"[INST]", "[/INST]", " ", "[", "]", "/", "I", "N", "S", "T", "a", "b", "\n",
                                         "\xE2\x96\x81[", "IN", "ST", "[IN", "ST]"});
  test::add_byte_pieces(v);
  for (const TokenId id : kMarkerIds) {
    v.types[static_cast<std::size_t>(id)] = markers;
    v.scores[static_cast<std::size_t>(id)] = -std::numeric_limits<float>::infinity();
  }
  return Tokenizer(v);
}

std::size_t count(std::string_view text, std::string_view part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

template <class Items, class Item>
std::size_t count_of(const Items& items, const Item& item) {
  return static_cast<std::size_t>(std::count(items.begin(), items.end(), item));
}

struct Conversation {
  std::vector<ChatMessage> messages;
  bool has_ids = false;
};

// Pieces of markers are likely, so that a fuzzer need not find them.
std::string_view any_text(fuzz::Bytes& bytes, std::vector<std::string>& texts) {
  static constexpr std::string_view kParts[] = {"[INST]", "[/INST]", "[",  "]",    "/", "INST", "IN",   "ST]",
                                                "[/",     " ",       "\n", "\n\n", "a", "b",    "</s>", "<s>"};
  std::string text;
  for (std::size_t n = bytes.below(8); n > 0; --n) {
    if (bytes.chance(4)) {
      text += bytes.text(16);
    } else {
      text += bytes.pick(kParts);
    }
  }
  return texts.emplace_back(std::move(text));
}

Conversation any_conversation(fuzz::Bytes& bytes, std::vector<std::string>& texts,
                              std::vector<std::vector<TokenId>>& ids) {
  constexpr std::size_t kMost = 8;
  texts.reserve(kMost);
  ids.reserve(kMost);
  Conversation c;
  const std::size_t n = 1 + bytes.below(kMost);
  bool user = true;
  for (std::size_t i = 0; i < n; ++i) {
    ChatMessage m{user ? ChatRole::kUser : ChatRole::kAssistant, {}, {}};
    if (i == 0 && bytes.chance(3)) {
      m.role = ChatRole::kSystem;
    } else {
      user = !user;
    }
    if (bytes.chance(16)) m.role = static_cast<ChatRole>(bytes.below(3));  // out of order
    m.text = any_text(bytes, texts);
    if (bytes.chance(8)) {
      auto& answer = ids.emplace_back();
      for (std::size_t k = bytes.below(4); k > 0; --k) answer.push_back(static_cast<TokenId>(bytes.byte()) - 2);
      m.ids = answer;
      c.has_ids = true;
    }
    c.messages.push_back(m);
  }
  return c;
}

void check(const Tokenizer& tokenizer, ChatStyle style, const Conversation& c, const std::vector<TokenId>& ids) {
  std::size_t users = 0, answers = 0;
  for (const ChatMessage& m : c.messages) {
    users += m.role == ChatRole::kUser ? 1 : 0;
    answers += m.role == ChatRole::kAssistant ? 1 : 0;
  }
  const Vocabulary& v = tokenizer.vocabulary();
  fuzz::expect(!ids.empty() && ids[0] == v.bos_id, "a conversation begins with BOS");
  if (c.has_ids) return;  // they stand as they were given
  fuzz::expect(count_of(ids, v.bos_id) == 1, "BOS stands once");
  fuzz::expect(count_of(ids, v.eos_id) == answers, "each answer ends with EOS, and nothing else does");
  std::string text;
  for (const TokenId id : ids) text += tokenizer.token_bytes(id);
  for (std::size_t i = 0; i < kMarkerIds.size(); ++i) {
    if (style == ChatStyle::kV3) {
      fuzz::expect(count_of(ids, kMarkerIds[i]) == users, "no text makes a control piece");
    } else {
      fuzz::expect(count(text, kMarkers[i]) == users, "no text makes a marker");
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Tokenizer text_markers = make_tokenizer(PieceType::kNormal);
  static const Tokenizer control_markers = make_tokenizer(PieceType::kControl);
  fuzz::Bytes bytes(data, size);
  const Tokenizer& tokenizer = bytes.chance(2) ? control_markers : text_markers;
  const ChatStyle style = bytes.chance(2) ? ChatStyle::kV3 : ChatStyle::kV1;
  const ForgedMarkers forged = bytes.chance(2) ? ForgedMarkers::kEscape : ForgedMarkers::kRefuse;
  std::vector<std::string> texts;
  std::vector<std::vector<TokenId>> ids;
  const Conversation conversation = any_conversation(bytes, texts, ids);
  try {
    const ChatTemplate chat(tokenizer, style, forged);
    check(tokenizer, style, conversation, chat.encode(conversation.messages));
  } catch (const Error& error) {
    fuzz::expect(error.code() == ErrorCode::kInvalidArgument, "a bad conversation is the caller's mistake");
  }
  return 0;
}
