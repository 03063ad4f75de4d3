// mixtral.h: texts, ids, conversations.
#include "mixtral/text/chat_template.hpp"
#include "support/capi.hpp"

using namespace mixtral;
using namespace mixtral::test;

namespace {

const Tokenizer& tokenizer() {
  static const Tokenizer loaded = Tokenizer::load(tiny_dir());
  return loaded;
}

mixtral_chat_message message(std::int32_t role, std::string_view text) {
  return {sizeof(mixtral_chat_message), role, text.data(), text.size(), nullptr, 0};
}

std::vector<std::int32_t> chat(const std::vector<mixtral_chat_message>& messages, std::uint32_t flags = 0) {
  return read_all<std::int32_t>([&](std::int32_t* out, std::size_t capacity, std::size_t* n) {
    return mixtral_chat_tokens(tiny_ctx(), MIXTRAL_CHAT_AUTO, flags, messages.data(), messages.size(), out, capacity,
                               n);
  });
}

}  // namespace

TEST_CASE("texts and ids go through the C ABI as through the C++ tokenizer") {
  for (const std::string_view text : {"", "hello", "a\xC3\xA9 \xF0\x9F\x98\x80\n", "<s> [INST]", "\xFF\xFE"}) {
    auto want = tokenizer().encode(text);
    want.insert(want.begin(), 1);
    const auto ids = tokenize(tiny_ctx(), text);
    CHECK(ids == want);
    const auto back = read_all<char>([&](char* out, std::size_t capacity, std::size_t* n) {
      return mixtral_detokenize(tiny_ctx(), ids.data(), ids.size(), out, capacity, n);
    });
    CHECK(std::string(back.begin(), back.end()) == tokenizer().decode(want));
  }
  for (const std::int32_t id : {0, 1, 13, 300, 4095}) {
    const auto bytes = read_all<char>([&](char* out, std::size_t capacity, std::size_t* n) {
      return mixtral_token_bytes(tiny_ctx(), id, out, capacity, n);
    });
    CHECK(std::string(bytes.begin(), bytes.end()) == tokenizer().token_bytes(id));
  }
}

TEST_CASE("a buffer that is too small is left alone and the size is told") {
  std::int32_t ids[8] = {-7, -7, -7, -7, -7, -7, -7, -7};
  std::size_t n = 99;
  const std::string_view text = "return value of the function";
  CHECK(refused(mixtral_tokenize(tiny_ctx(), text.data(), text.size(), 0, ids, 2, &n), MIXTRAL_BUFFER_TOO_SMALL) ==
        "tokens: capacity 2, the answer has " + std::to_string(tokenizer().encode(text).size()));
  CHECK(n == tokenizer().encode(text).size());
  CHECK(ids[0] == -7);
  n = 99;
  CHECK(refused(mixtral_tokenize(tiny_ctx(), text.data(), text.size(), 0, nullptr, 5, &n), MIXTRAL_INVALID_ARGUMENT) ==
        "tokens is NULL but its capacity is 5");
  CHECK(n == 99);
  CHECK(refused(mixtral_tokenize(tiny_ctx(), text.data(), text.size(), 0, ids, 8, nullptr), MIXTRAL_INVALID_ARGUMENT) ==
        "the place for the size of tokens is NULL");
  CHECK(refused(mixtral_tokenize(tiny_ctx(), text.data(), text.size(), 8, ids, 8, &n), MIXTRAL_INVALID_ARGUMENT) ==
        "tokenize: flags 8 has bits that this version does not know");
  const std::int32_t beyond[] = {1, 4096};
  CHECK(refused(mixtral_detokenize(tiny_ctx(), beyond, 2, nullptr, 0, &n), MIXTRAL_INVALID_ARGUMENT) ==
        "token id 4096 is outside the vocabulary of 4096");
}

TEST_CASE("a conversation gives the ids of the C++ template") {
  const ChatTemplate want(tokenizer(), ChatStyle::kV1);
  const auto reply = tokenizer().encode("fine");
  const ChatMessage messages[] = {{ChatRole::kSystem, "Be brief."},
                                  {ChatRole::kUser, "How?"},
                                  {ChatRole::kAssistant, "", reply},
                                  {ChatRole::kUser, "And?"}};
  std::vector<mixtral_chat_message> c = {message(0, "Be brief."), message(1, "How?"), message(2, ""),
                                         message(1, "And?")};
  c[2].tokens = reply.data();
  c[2].n_tokens = reply.size();
  CHECK(chat(c) == want.encode(messages));
}

TEST_CASE("a conversation's mistakes name the message") {
  const auto why = [](const std::vector<mixtral_chat_message>& messages) {
    std::size_t n = 0;
    return refused(
        mixtral_chat_tokens(tiny_ctx(), MIXTRAL_CHAT_V1, 0, messages.data(), messages.size(), nullptr, 0, &n),
        MIXTRAL_INVALID_ARGUMENT);
  };
  CHECK(why({message(1, "a"), message(3, "b")}) == "message 1: role is 3, expected 0 to 2");
  std::vector<mixtral_chat_message> sizes = {message(1, "a"), message(2, "b")};
  sizes[1].struct_size = 56;
  CHECK(why(sizes) == "message 1: struct_size is 56, that of message 0 is 40");
  sizes[0].struct_size = 32;
  CHECK(why(sizes) == "message 0: struct_size is 32, expected 40 to 1024");
  CHECK(why({message(1, "a [/INST] b")}).find("[/INST]") != std::string::npos);
  CHECK(why({message(1, "a"), message(1, "b")}).find("1") != std::string::npos);
  CHECK_FALSE(chat({message(1, "a [/INST] b")}, MIXTRAL_CHAT_ESCAPE).empty());
  const std::int32_t beyond[] = {5, 4096};
  std::vector<mixtral_chat_message> drawn = {message(1, "a"), message(2, "")};
  drawn[1].tokens = beyond;
  drawn[1].n_tokens = 2;
  CHECK(why(drawn) == "message 1: token 4096 is outside the vocabulary of 4096");
  std::size_t n = 0;
  const mixtral_chat_message m = message(1, "a");
  CHECK(refused(mixtral_chat_tokens(tiny_ctx(), 2, 0, &m, 1, nullptr, 0, &n), MIXTRAL_INVALID_ARGUMENT) ==
        "chat: style is 2, expected 0, 1 or 3");
}
