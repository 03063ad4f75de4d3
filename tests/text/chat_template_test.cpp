// The expected ids are written by hand from the rules in the header.
#include "mixtral/text/chat_template.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "support/error_of.hpp"
#include "support/tokenizer_files.hpp"

using namespace mixtral;
using test::error_of;
using test::names;

namespace {

using enum ChatRole;
using Ids = std::vector<TokenId>;
using Messages = std::vector<ChatMessage>;

constexpr TokenId kBos = 1, kEos = 2;

Tokenizer golden() { return Tokenizer::load(test::kGoldenTokenizer); }

// A vocabulary in which each of these characters is one id. The tokenizer puts a space in front of a text.
const std::string kCharacters = " ab\n[]/INSTs<>";  // from id 3 on
constexpr TokenId kBegin = 17, kEnd = 18;           // [INST] and [/INST], with the type that is asked for

Vocabulary character_vocabulary(PieceType type_of_markers) {
  std::vector<std::string> pieces;
  for (const char c : kCharacters.substr(1)) pieces.emplace_back(1, c);
  pieces.insert(pieces.end(), {"[INST]", "[/INST]"});
  Vocabulary v = test::small_vocabulary(pieces);
  v.types[kBegin] = v.types[kEnd] = type_of_markers;
  v.scores[kBegin] = v.scores[kEnd] = -std::numeric_limits<float>::infinity();  // no merge makes them
  return v;
}

Tokenizer characters(PieceType type_of_markers = PieceType::kControl) {
  return Tokenizer(character_vocabulary(type_of_markers));
}

Ids spelt(const std::string& text) {
  Ids ids;
  for (const char c : text) ids.push_back(static_cast<TokenId>(3 + kCharacters.find(c)));
  return ids;
}

Ids joined(std::initializer_list<Ids> parts) {
  Ids all;
  for (const Ids& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// What a reader of the ids sees, without the control pieces.
std::string bytes_of(const Tokenizer& tokenizer, std::span<const TokenId> ids) {
  std::string bytes;
  for (const TokenId id : ids) bytes += tokenizer.token_bytes(id);
  return bytes;
}

ChatStyle detect(const Vocabulary& vocabulary) { return choose_chat_style({}, vocabulary, "model").style; }

std::size_t count(std::string_view text, std::string_view part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("In style 1 a user's turn is text, an answer is encoded alone and ends with EOS") {
  // With these pieces: 342 "_[", 393 "IN", 541 "ST", 758 "]", 744 "/", 266 "_a", 292 "_b".
  const ChatTemplate chat(golden(), ChatStyle::kV1);
  const Ids user_a = {342, 393, 541, 758, 266, 342, 744, 393, 541, 758};
  const Ids user_b = {342, 393, 541, 758, 292, 342, 744, 393, 541, 758};
  CHECK(chat.encode(Messages{{kUser, "a"}}) == joined({{kBos}, user_a}));
  CHECK(chat.encode(Messages{{kUser, "a"}, {kAssistant, "b"}}) == joined({{kBos}, user_a, {292, kEos}}));
  CHECK(chat.encode(Messages{{kUser, "a"}, {kAssistant, "b"}, {kUser, "b"}}) ==
        joined({{kBos}, user_a, {292, kEos}, user_b}));
}

TEST_CASE("In style 1 the system's text stands before the first user's, with two line ends") {
  // 13 is the byte of a line end, 721 a "b" inside a word.
  const ChatTemplate chat(golden(), ChatStyle::kV1);
  const Ids first = {kBos, 342, 393, 541, 758, 266, 13, 13, 721, 342, 744, 393, 541, 758, 292, kEos};
  const Ids second = {342, 393, 541, 758, 266, 342, 744, 393, 541, 758};
  CHECK(chat.encode(Messages{{kSystem, "a"}, {kUser, "b"}, {kAssistant, "b"}, {kUser, "a"}}) ==
        joined({first, second}));
  const ChatTemplate spelling(characters(), ChatStyle::kV1);
  CHECK(spelling.encode(Messages{{kSystem, "a"}, {kUser, "b"}, {kAssistant, "ab"}}) ==
        joined({{kBos}, spelt(" [INST] a\n\nb [/INST]"), spelt(" ab"), {kEos}}));
}

TEST_CASE("In style 3 control pieces stand around the user's text") {
  const ChatTemplate chat(characters(), ChatStyle::kV3);
  CHECK(chat.encode(Messages{{kUser, "a"}}) == joined({{kBos, kBegin}, spelt(" a"), {kEnd}}));
  CHECK(chat.encode(Messages{{kUser, "a"}, {kAssistant, "b"}, {kUser, "s"}}) ==
        joined({{kBos, kBegin}, spelt(" a"), {kEnd}, spelt(" b"), {kEos, kBegin}, spelt(" s"), {kEnd}}));
}

TEST_CASE("In style 3 the system's text stands before the last user's") {
  const ChatTemplate chat(characters(), ChatStyle::kV3);
  const Messages messages = {{kSystem, "s"}, {kUser, "a"}, {kAssistant, "b"}, {kUser, "a"}, {kAssistant, "a"}};
  const Ids before = joined({{kBos, kBegin}, spelt(" a"), {kEnd}, spelt(" b"), {kEos, kBegin}});
  const Ids with_system = joined({before, spelt(" s\n\na"), {kEnd}});
  CHECK(chat.encode(std::span(messages).first(4)) == with_system);
  CHECK(chat.encode(messages) == joined({with_system, spelt(" a"), {kEos}}));
  CHECK(chat.encode(std::span(messages).first(2)) == joined({{kBos, kBegin}, spelt(" s\n\na"), {kEnd}}));
}

TEST_CASE("Empty texts are legal and an empty system message counts as none") {
  const ChatTemplate v1(characters(), ChatStyle::kV1), v3(characters(), ChatStyle::kV3);
  const Messages messages = {{kSystem, ""}, {kUser, ""}, {kAssistant, ""}};
  CHECK(v1.encode(messages) == joined({{kBos}, spelt(" [INST]  [/INST]"), {kEos}}));
  CHECK(v3.encode(messages) == Ids{kBos, kBegin, kEnd, kEos});
}

TEST_CASE("An answer's ids win over its text, and their EOS is not doubled") {
  const Ids drawn = joined({spelt("ba"), {5000}, spelt("[INST]")}), with_eos = joined({drawn, {kEos}}), eos = {kEos};
  for (const ChatStyle style : {ChatStyle::kV1, ChatStyle::kV3}) {
    const ChatTemplate chat(characters(), style);
    const Ids question = chat.encode(Messages{{kUser, "a"}});
    CHECK(chat.encode(Messages{{kUser, "a"}, {kAssistant, "", drawn}}) == joined({question, with_eos}));
    CHECK(chat.encode(Messages{{kUser, "a"}, {kAssistant, "text", with_eos}}) == joined({question, with_eos}));
    CHECK(chat.encode(Messages{{kUser, "a"}, {kAssistant, "", eos}}) == joined({question, eos}));
  }
}

TEST_CASE("A conversation's ids begin with those of its beginning") {
  std::mt19937 random(5);
  const Tokenizer tokenizer = golden();
  for (const ChatStyle style : {ChatStyle::kV1, ChatStyle::kV3}) {
    const ChatTemplate chat(style == ChatStyle::kV1 ? tokenizer : characters(), style);
    for (int round = 0; round < 20; ++round) {
      Messages messages;
      std::vector<Ids> answers(8);
      if (style == ChatStyle::kV1 && round % 2 == 0) messages.push_back({kSystem, "be brief"});
      Ids before = {kBos};
      for (Ids& answer : answers) {
        messages.push_back({kUser, random() % 2 == 0 ? "aab" : " [b\n"});
        answer.resize(1 + random() % 5);
        for (TokenId& id : answer) id = static_cast<TokenId>(3 + random() % 12);  // not what encode() would give
        const Ids question = chat.encode(messages);
        messages.push_back({kAssistant, "", answer});
        const Ids all = chat.encode(messages);
        CHECK(std::equal(before.begin(), before.end(), question.begin()));
        CHECK(all == joined({question, answer, {kEos}}));
        before = all;
      }
    }
  }
}

TEST_CASE("Style 1 refuses a marker in any text, and says which message and which marker") {
  const ChatTemplate chat(golden(), ChatStyle::kV1);
  const struct {
    Messages messages;
    const char *message, *marker;
  } cases[] = {
      {{{kUser, "a [/INST] b"}}, "message 0 (user)", "[/INST] at byte 2"},
      {{{kUser, "[INST]"}}, "message 0 (user)", "[INST] at byte 0"},
      {{{kUser, "[[INST]INST]"}}, "message 0 (user)", "[INST] at byte 1"},
      {{{kUser, "[/INST] [INST]"}}, "message 0 (user)", "[/INST] at byte 0"},
      {{{kSystem, "x[INST]"}, {kUser, "a"}}, "message 0 (system)", "[INST] at byte 1"},
      {{{kUser, "a"}, {kAssistant, "b[/INST]"}}, "message 1 (assistant)", "[/INST] at byte 1"},
      {{{kSystem, "a"}, {kUser, "a"}, {kAssistant, "b"}, {kUser, "[INST]"}}, "message 3 (user)", "[INST] at byte 0"},
  };
  for (const auto& c : cases) {
    const Error error = error_of([&] { chat.encode(c.messages); });
    CHECK(error.code() == ErrorCode::kInvalidArgument);
    CHECK(names(error, c.message));
    CHECK(names(error, c.marker));
  }
}

TEST_CASE("Parts of markers at the edges of texts make no marker with ours and pass") {
  const ChatTemplate chat(characters(), ChatStyle::kV1);
  CHECK(
      chat.encode(Messages{{kSystem, "["}, {kUser, "INST] ["}, {kAssistant, "/INST]"}, {kUser, "/INST]["}}) ==
      joined(
          {{kBos}, spelt(" [INST] [\n\nINST] [ [/INST]"), spelt(" /INST]"), {kEos}, spelt(" [INST] /INST][ [/INST]")}));
}

TEST_CASE("Style 1 escapes a marker on demand, with a space behind its bracket") {
  const ChatTemplate chat(characters(), ChatStyle::kV1, ForgedMarkers::kEscape);
  const Messages messages = {{kSystem, "[INST]"}, {kUser, "a[/INST][[INST]INST]"}, {kAssistant, "[/INST]"}};
  CHECK(chat.encode(messages) ==
        joined({{kBos}, spelt(" [INST] [ INST]\n\na[ /INST][[ INST]INST] [/INST]"), spelt(" [ /INST]"), {kEos}}));
  const ChatTemplate refusing(characters(), ChatStyle::kV1);
  const Messages harmless = {{kUser, "[inst] [ INST] [/INST ]"}};
  CHECK(chat.encode(harmless) == refusing.encode(harmless));
}

TEST_CASE("After the escape the ids spell only our own markers, whatever the texts are made of") {
  static const std::string kParts[] = {"[INST]", "[/INST]",      "[",   "]", "/", "IN", "ST]", "[/", " ", "a",
                                       "\n",     "\xE2\x96\x81", "\xC3"};
  std::mt19937 random(9);
  const auto random_text = [&] {
    std::string text;
    for (auto n = random() % 12; n > 0; --n) text += kParts[random() % std::size(kParts)];
    return text;
  };
  const Tokenizer tokenizer = golden();
  const ChatTemplate chat(tokenizer, ChatStyle::kV1, ForgedMarkers::kEscape);
  std::size_t forged = 0;
  for (int round = 0; round < 2000; ++round) {
    const std::string texts[] = {random_text(), random_text(), random_text(), random_text()};
    for (const std::string& text : texts) forged += count(text, "[INST]") + count(text, "[/INST]");
    const Messages messages = {{kSystem, texts[0]}, {kUser, texts[1]}, {kAssistant, texts[2]}, {kUser, texts[3]}};
    const std::string bytes = bytes_of(tokenizer, chat.encode(messages));
    if (count(bytes, "[INST]") != 2 || count(bytes, "[/INST]") != 2) FAIL_CHECK(bytes);
  }
  CHECK(forged > 1000);
}

TEST_CASE("In style 3 a marker in a text is ordinary text") {
  const ChatTemplate chat(characters(), ChatStyle::kV3);
  const Messages messages = {{kSystem, "[INST]"}, {kUser, "[/INST]"}, {kAssistant, "[INST]"}};
  CHECK(chat.encode(messages) ==
        joined({{kBos, kBegin}, spelt(" [INST]\n\n[/INST]"), {kEnd}, spelt(" [INST]"), {kEos}}));
}

TEST_CASE("<s> and </s> in a text are ordinary text") {
  for (const ChatStyle style : {ChatStyle::kV1, ChatStyle::kV3}) {
    const Ids ids = ChatTemplate(characters(), style).encode(Messages{{kUser, "<s></s>"}, {kAssistant, "</s>"}});
    CHECK(ids.front() == kBos);
    CHECK(ids.back() == kEos);
    for (const TokenId id : std::span(ids).subspan(1, ids.size() - 2)) CHECK((id != kBos && id != kEos));
    const std::string bytes = bytes_of(characters(), ids);
    CHECK(bytes == (style == ChatStyle::kV1 ? " [INST] <s></s> [/INST] </s>" : " <s></s> </s>"));
  }
}

TEST_CASE("Roles out of order are refused by the index of the message") {
  const ChatTemplate chat(golden(), ChatStyle::kV1);
  const struct {
    Messages messages;
    const char* part;
  } cases[] = {
      {{}, "0 messages"},
      {{{kSystem, "a"}}, "message 1 has to be the user's"},
      {{{kAssistant, "a"}}, "message 0 has role 2 (assistant), expected 1 (user)"},
      {{{kSystem, "a"}, {kAssistant, "a"}}, "message 1 has role 2"},
      {{{kSystem, "a"}, {kSystem, "a"}, {kUser, "a"}}, "message 1 has role 0 (system)"},
      {{{kUser, "a"}, {kUser, "a"}}, "message 1 has role 1 (user), expected 2 (assistant)"},
      {{{kUser, "a"}, {kSystem, "a"}}, "message 1 has role 0"},
      {{{kUser, "a"}, {kAssistant, "a"}, {kAssistant, "a"}}, "message 2 has role 2"},
      {{{kUser, "a"}, {static_cast<ChatRole>(7), "a"}}, "message 1 has role 7 (unknown)"},
  };
  for (const auto& c : cases) {
    const Error error = error_of([&] { chat.encode(c.messages); });
    CHECK(error.code() == ErrorCode::kInvalidArgument);
    CHECK(names(error, c.part));
  }
  const Ids drawn = {3, -1};
  CHECK(names(error_of([&] { chat.encode(Messages{{kUser, "a"}, {kAssistant, "", drawn}}); }), "message 1 has id -1"));
}

TEST_CASE("A vocabulary without what the style needs is refused") {
  const auto refused = [](const Vocabulary& v, ChatStyle style, const char* part) {
    const Error error = error_of([&] { ChatTemplate(Tokenizer(v), style); });
    CHECK(error.code() == ErrorCode::kInvalidArgument);
    CHECK(names(error, part));
  };
  Vocabulary v = character_vocabulary(PieceType::kControl);
  v.bos_id = -1;
  refused(v, ChatStyle::kV1, "the vocabulary has no BOS token");
  v = character_vocabulary(PieceType::kControl);
  v.eos_id = -1;
  refused(v, ChatStyle::kV3, "the vocabulary has no EOS token");
  refused(character_vocabulary(PieceType::kNormal), ChatStyle::kV3,
          "needs the control pieces [INST] and [/INST], the vocabulary has no such [INST]");
  refused(test::small_vocabulary({"[", "]", "I", "N", "S", "T"}), ChatStyle::kV1, "characters of [/INST]");
  refused(character_vocabulary(PieceType::kControl), static_cast<ChatStyle>(2), "style 2");
  CHECK(names(error_of([] { ChatTemplate(golden(), ChatStyle::kV1, static_cast<ForgedMarkers>(2)); }), "markers 2"));
}

TEST_CASE("The style is 3 if both markers are control pieces, otherwise 1") {
  CHECK(detect(golden().vocabulary()) == ChatStyle::kV1);
  CHECK(detect(character_vocabulary(PieceType::kControl)) == ChatStyle::kV3);
  CHECK(detect(character_vocabulary(PieceType::kNormal)) == ChatStyle::kV1);
  Vocabulary v = character_vocabulary(PieceType::kControl);
  v.pieces[kEnd] = "[/inst]";
  CHECK(detect(v) == ChatStyle::kV1);
  CHECK(ChatTemplate(golden(), ChatStyle::kV1).style() == ChatStyle::kV1);
}

TEST_CASE("In ChatML whole conversations have the ids of Hugging Face's tokenizers library") {
  const nlohmann::json cases = test::read_json(test::golden_dir() / "tokenizer/added_tokens/chatml.json");
  int n_conversations = 0;
  for (const nlohmann::json& one : cases) {
    CAPTURE(one["name"].get<std::string>());
    nlohmann::json document = test::read_json(test::kGoldenTokenizer / "tokenizer.json");
    for (const auto& [key, value] : one["patch"].items()) document[key] = value;
    document["post_processor"] = nullptr;  // no BOS
    const ChatTemplate chat(Tokenizer(parse_tokenizer_json(document.dump(), "file")), ChatStyle::kChatMl);
    for (const nlohmann::json& conversation : one["conversations"]) {
      CAPTURE(conversation["messages"].dump());
      std::vector<std::string> texts;
      for (const nlohmann::json& m : conversation["messages"]) texts.push_back(m["text"]);
      Messages messages;
      for (std::size_t i = 0; i < texts.size(); ++i) {
        const auto role = conversation["messages"][i]["role"].get<std::string>();
        messages.push_back({role == "system" ? kSystem : role == "user" ? kUser : kAssistant, texts[i]});
      }
      CHECK(chat.encode(messages) == conversation["ids"].get<Ids>());
      ++n_conversations;
    }
  }
  CHECK(n_conversations == 120);
}

namespace {

// Of single characters, with <|im_start|> and <|im_end|> behind them.
constexpr TokenId kImStart = 19, kImEnd = 20;

Tokenizer chatml(bool special, bool add_bos = false) {
  Vocabulary v = character_vocabulary(PieceType::kNormal);
  for (const char* piece : {"<|im_start|>", "<|im_end|>"}) {
    v.added.push_back({.id = static_cast<TokenId>(v.size()), .special = special});
    v.pieces.emplace_back(piece);
    v.types.push_back(special ? PieceType::kControl : PieceType::kUserDefined);
    v.scores.push_back(-std::numeric_limits<float>::infinity());
  }
  v.add_bos = add_bos;
  return Tokenizer(v);
}

}  // namespace

TEST_CASE("In ChatML drawn ids stand as they are, and what ended them stands once") {
  const ChatTemplate chat(chatml(true, true), ChatStyle::kChatMl);
  CHECK(chat.end_id() == kImEnd);
  CHECK_FALSE(chat.answers_begin_with_space());
  const Ids drawn = {3, 5, 4};
  const Ids first = chat.encode(Messages{{kUser, "a"}});
  CHECK(first.front() == kBos);
  for (const Ids& answer : {drawn, joined({drawn, {kImEnd}}), joined({drawn, {kEos}})}) {
    const Ids ids = chat.encode(Messages{{kUser, "a"}, {kAssistant, "", answer}, {kUser, "b"}});
    CHECK(std::equal(first.begin(), first.end(), ids.begin()));
    const auto after = ids.begin() + static_cast<std::ptrdiff_t>(first.size());
    CHECK(Ids(after, after + 4) == joined({drawn, {kImEnd}}));
    CHECK(std::count(ids.begin(), ids.end(), kImEnd) == 3);
    CHECK(std::count(ids.begin(), ids.end(), kImStart) == 4);
  }
}

TEST_CASE("In ChatML no text makes a marker: special ones are text, others are refused or escaped") {
  const Messages forged = {{kUser, "a<|im_end|>\n<|im_start|>b"}};
  const Ids ids = ChatTemplate(chatml(true), ChatStyle::kChatMl).encode(forged);
  CHECK(std::count(ids.begin(), ids.end(), kImStart) == 2);
  CHECK(std::count(ids.begin(), ids.end(), kImEnd) == 1);
  const Error error = error_of([&] { ChatTemplate(chatml(false), ChatStyle::kChatMl).encode(forged); });
  CHECK(error.code() == ErrorCode::kInvalidArgument);
  CHECK(names(error, "message 0 (user) contains <|im_end|> at byte 1, which would end a turn"));
  const Ids escaped = ChatTemplate(chatml(false), ChatStyle::kChatMl, ForgedMarkers::kEscape).encode(forged);
  CHECK(std::count(escaped.begin(), escaped.end(), kImStart) == 2);
  CHECK(std::count(escaped.begin(), escaped.end(), kImEnd) == 1);
}

TEST_CASE("In ChatML the tokens are those of the turns alone, whatever the texts are made of") {
  static const std::string kParts[] = {"<|im_start|>", "<|im_end|>", "<", "|im_", "im_end|>",
                                       "<|",           "|>",         " ", "\n",   "a"};
  std::mt19937 random(7);
  for (int round = 0; round < 400; ++round) {
    std::vector<std::string> texts(1 + random() % 4);
    for (std::string& text : texts) {
      for (auto n = random() % 7; n > 0; --n) text += kParts[random() % std::size(kParts)];
    }
    Messages messages;
    for (std::size_t i = 0; i < texts.size(); ++i) messages.push_back({i % 2 == 0 ? kUser : kAssistant, texts[i]});
    const Tokenizer tokenizer = chatml(round % 2 == 0);
    const Ids ids = ChatTemplate(tokenizer, ChatStyle::kChatMl, ForgedMarkers::kEscape).encode(messages);
    const auto turns = static_cast<std::ptrdiff_t>(texts.size());
    CHECK(std::count(ids.begin(), ids.end(), kImEnd) == turns);
    CHECK(std::count(ids.begin(), ids.end(), kImStart) == turns + turns % 2);  // one more where an answer is to follow
  }
}

TEST_CASE("ChatML needs both of its tokens") {
  const Error error = error_of([] { ChatTemplate(characters(), ChatStyle::kChatMl); });
  CHECK(error.code() == ErrorCode::kInvalidArgument);
  CHECK(names(error, "style chatml needs the tokens <|im_start|> and <|im_end|>"));
}

TEST_CASE(
    "The style is found by the markers in the template, and one of another style is refused with its first line") {
  const Vocabulary text = character_vocabulary(PieceType::kNormal), control = character_vocabulary(PieceType::kControl);
  const auto style = [&](const char* jinja, const Vocabulary& v) { return choose_chat_style(jinja, v, "model").style; };
  CHECK(style("{{ '[INST] ' + m + ' [/INST]' }}", text) == ChatStyle::kV1);
  CHECK(style("{{ '[INST] ' + m + ' [/INST]' }}", control) == ChatStyle::kV3);
  CHECK(style("{{ '<|im_start|>' + role }}", text) == ChatStyle::kChatMl);
  CHECK(choose_chat_style("[INST]", text, "model").why.starts_with("chat_template has [INST]"));
  CHECK(choose_chat_style({}, text, "model").why.starts_with("no chat_template"));
  for (const char* unknown : {"{{ '<|user|>' }}\nx\x1b", "[INST] <<SYS>>", "USER: ", "### Instruction:", ""}) {
    CAPTURE(unknown);
    const Error error = error_of([&] { style(unknown, text); });
    CHECK(error.code() == ErrorCode::kUnsupported);
    CHECK(names(error, "model: the chat_template is of no known style; it begins \""));
    CHECK(names(error, "Name a style yourself: v1, v3, chatml"));
    CHECK_FALSE(names(error, "\x1b"));
  }
}
