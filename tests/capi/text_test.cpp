// mixtral.h: texts, ids, conversations.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "mixtral/runtime/embedding.hpp"
#include "mixtral/text/chat_template.hpp"
#include "support/capi.hpp"
#include "support/small_checkpoint.hpp"

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
  CHECK(why(drawn) == "chat: message 1 has id 4096, outside the vocabulary of 4096");
  std::size_t n = 0;
  const mixtral_chat_message m = message(1, "a");
  CHECK(refused(mixtral_chat_tokens(tiny_ctx(), 2, 0, &m, 1, nullptr, 0, &n), MIXTRAL_INVALID_ARGUMENT) ==
        "chat: style is 2, expected 0, 1, 3 or 100");
}

namespace {

// A model on disk that talks in ChatML.
Ctx open_chatml(const TempDir& dir, const char* chat_template, const mixtral_params& p = params()) {
  write_small_checkpoint(dir.path());
  const nlohmann::json settings = {{"chat_template", chat_template},
                                   {"added_tokens_decoder",
                                    {{"273", {{"content", "<|im_start|>"}, {"special", true}}},
                                     {"274", {{"content", "<|im_end|>"}, {"special", true}}}}}};
  write_text(dir / "tokenizer_config.json", settings.dump());
  return open_ctx(p, dir.path());
}

}  // namespace

TEST_CASE("special tokens that a text spells are tokens if the flag says so") {
  const std::string_view text = "<s>a";
  std::int32_t ids[16];
  std::size_t n = 0;
  ok(mixtral_tokenize(tiny_ctx(), text.data(), text.size(), MIXTRAL_TOKENIZE_SPECIAL, ids, 16, &n));
  CHECK(ids[0] == 1);
  CHECK(std::vector<TokenId>(ids + 1, ids + n) == tokenizer().encode("a"));
  ok(mixtral_tokenize(tiny_ctx(), text.data(), text.size(), 0, ids, 16, &n));
  CHECK(std::vector<TokenId>(ids, ids + n) == tokenizer().encode(text));
  refused(mixtral_tokenize(tiny_ctx(), text.data(), text.size(), 4, ids, 16, &n), MIXTRAL_INVALID_ARGUMENT);
}

TEST_CASE("a model whose template is ChatML's is talked to in ChatML, and <|im_end|> ends its texts") {
  const TempDir dir;
  const Ctx ctx = open_chatml(dir, "<|im_start|>");
  mixtral_info info{};
  info.struct_size = sizeof info;
  ok(mixtral_ctx_info(ctx.get(), &info));
  CHECK(info.chat_style == MIXTRAL_CHAT_CHATML);
  CHECK(mixtral_token_is_eos(ctx.get(), 274) == 1);
  CHECK(mixtral_token_is_eos(ctx.get(), 273) == 0);
  const mixtral_chat_message messages[] = {message(MIXTRAL_ROLE_USER, "a")};
  for (const std::int32_t style : {MIXTRAL_CHAT_AUTO, MIXTRAL_CHAT_CHATML}) {
    const auto ids = read_all<std::int32_t>([&](std::int32_t* out, std::size_t capacity, std::size_t* n) {
      return mixtral_chat_tokens(ctx.get(), style, 0, messages, 1, out, capacity, n);
    });
    CHECK(ids[1] == 273);
    CHECK(std::count(ids.begin(), ids.end(), 274) == 1);
    CHECK(std::count(ids.begin(), ids.end(), 273) == 2);
  }
}

TEST_CASE("a template of no known style is told to the log, and refused where the style is wanted") {
  const TempDir dir;
  std::vector<std::string> log;
  mixtral_params p = params();
  p.log_user = &log;
  p.log = [](void* user, std::int32_t, const char* text, std::size_t size) {
    static_cast<std::vector<std::string>*>(user)->emplace_back(text, size);
  };
  const Ctx ctx = open_chatml(dir, "{{ '<|user|>' }}", p);
  CHECK(std::any_of(log.begin(), log.end(),
                    [](const std::string& text) { return text.find("of no known style") != text.npos; }));
  mixtral_info info{};
  info.struct_size = sizeof info;
  ok(mixtral_ctx_info(ctx.get(), &info));
  CHECK(info.chat_style == 0);
  const mixtral_chat_message messages[] = {message(MIXTRAL_ROLE_USER, "a")};
  std::size_t n = 0;
  CHECK(refused(mixtral_chat_tokens(ctx.get(), MIXTRAL_CHAT_AUTO, 0, messages, 1, nullptr, 0, &n), MIXTRAL_UNSUPPORTED)
            .find("Name a style yourself: v1, v3, chatml") != std::string::npos);
  std::int32_t ids[64];
  ok(mixtral_chat_tokens(ctx.get(), MIXTRAL_CHAT_V1, 0, messages, 1, ids, 64, &n));
}

TEST_CASE("ids of the model's rows beyond the pieces decode to nothing") {
  const TempDir dir;
  write_small_checkpoint(dir.path());
  const Ctx ctx = open_ctx(params(), dir.path());
  mixtral_info info{};
  info.struct_size = sizeof info;
  ok(mixtral_ctx_info(ctx.get(), &info));
  REQUIRE(info.n_pieces < info.vocab_size);
  const auto last = static_cast<std::int32_t>(info.vocab_size - 1);
  std::size_t n = 99;
  ok(mixtral_detokenize(ctx.get(), &last, 1, nullptr, 0, &n));
  CHECK(n == 0);
  const std::int32_t beyond = last + 1;
  refused(mixtral_detokenize(ctx.get(), &beyond, 1, nullptr, 0, &n), MIXTRAL_INVALID_ARGUMENT);
}

TEST_CASE("hidden rows and embeddings are those of the library, and the size is told before anything is computed") {
  const LoadedModel model(tiny_dir(), {.threads = 1});
  const std::vector<std::int32_t> ids = tokenize(tiny_ctx(), "RETURN VALUE");
  Embedder embedder(model);
  const auto dim = static_cast<std::size_t>(model.config().dim);
  std::size_t n = 0;
  CHECK(refused(mixtral_hidden(tiny_ctx(), ids.data(), ids.size(), -1, MIXTRAL_POOL_NONE, nullptr, 0, &n),
                MIXTRAL_BUFFER_TOO_SMALL) != "");
  REQUIRE(n == ids.size() * dim);
  std::vector<float> rows(n);
  ok(mixtral_hidden(tiny_ctx(), ids.data(), ids.size(), 3, MIXTRAL_POOL_NONE, rows.data(), n, &n));
  const Matrix<float> want = embedder.hidden(ids, 3);
  CHECK(std::equal(rows.begin(), rows.end(), want.span().begin(), want.span().end()));
  for (const std::int32_t pooling : {MIXTRAL_POOL_MEAN, MIXTRAL_POOL_LAST}) {
    ok(mixtral_hidden(tiny_ctx(), ids.data(), ids.size(), MIXTRAL_HIDDEN_FINAL, pooling, rows.data(), dim, &n));
    REQUIRE(n == dim);
    const std::vector<float> vector = embedder.embed(ids, static_cast<Pooling>(pooling));
    CHECK(std::equal(vector.begin(), vector.end(), rows.begin()));
  }
  const auto refuse = [&](std::size_t n_tokens, std::int32_t layer, std::int32_t pooling) {
    return refused(mixtral_hidden(tiny_ctx(), ids.data(), n_tokens, layer, pooling, rows.data(), rows.size(), &n),
                   MIXTRAL_INVALID_ARGUMENT);
  };
  CHECK(refuse(0, -1, 0) == "embedder: no tokens");
  CHECK(refuse(2, 6, 0) == "embedder: layer 6, expected 0 to 5, or -1 for what the head reads");
  CHECK(refuse(2, -1, 3) == "hidden: pooling is 3, expected MIXTRAL_POOL_*");
}
