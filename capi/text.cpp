// Texts, token ids, conversations.
#include <algorithm>
#include <iterator>
#include <string>

#include "handles.hpp"
#include "mixtral/runtime/embedding.hpp"
#include "options.hpp"

using namespace mixtral;
using namespace mixtral::capi;

namespace {

// The messages behind an array of structs of any version.
std::vector<ChatMessage> read_messages(const mixtral_chat_message* messages, std::size_t n, Index vocab_size) {
  std::vector<ChatMessage> out;
  if (n == 0) return out;
  require(messages != nullptr, "messages is NULL but there are ", n, " of them");
  const std::size_t stride = messages->struct_size;
  require_struct(messages, sizeof(mixtral_chat_message), "message 0");
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
    for (const TokenId id : tokens) {
      require(id >= 0 && id < vocab_size, name, ": token ", id, " is outside the vocabulary of ", vocab_size);
    }
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

}  // namespace

mixtral_status mixtral_tokenize(const mixtral_ctx* ctx, const char* text, size_t text_size, uint32_t flags,
                                int32_t* tokens, size_t capacity, size_t* n_tokens) {
  return guarded([&] {
    const LoadedModel& model = engine_of(ctx).model;
    const Tokenizer& tokenizer = model.require_tokenizer();
    const Output out(tokens, capacity, n_tokens, "tokens");
    require_flags(flags, MIXTRAL_TOKENIZE_BOS | MIXTRAL_TOKENIZE_SPECIAL, "tokenize");
    const auto special = (flags & MIXTRAL_TOKENIZE_SPECIAL) != 0 ? SpecialTokens::kAll : SpecialTokens::kAsText;
    const std::string_view words = input_text(text, text_size, "text");
    out.write((flags & MIXTRAL_TOKENIZE_BOS) != 0 ? model.prompt(words, special) : tokenizer.encode(words, special));
  });
}

mixtral_status mixtral_detokenize(const mixtral_ctx* ctx, const int32_t* tokens, size_t n_tokens, char* text,
                                  size_t capacity, size_t* text_size) {
  return guarded([&] {
    const Tokenizer& tokenizer = engine_of(ctx).model.require_tokenizer();
    const Output out(text, capacity, text_size, "text");
    out.write(tokenizer.decode(input(tokens, n_tokens, "tokens")));
  });
}

mixtral_status mixtral_token_bytes(const mixtral_ctx* ctx, int32_t token, char* bytes, size_t capacity,
                                   size_t* bytes_size) {
  return guarded([&] {
    const Tokenizer& tokenizer = engine_of(ctx).model.require_tokenizer();
    const Output out(bytes, capacity, bytes_size, "bytes");
    out.write(tokenizer.token_bytes(token));
  });
}

int32_t mixtral_token_is_eos(const mixtral_ctx* ctx, int32_t token) {
  if (ctx == nullptr || !ctx->tag.is(Tag::Kind::kCtx)) return 0;
  const std::vector<TokenId>& ids = ctx->engine->model.config().eos_ids;
  return std::find(ids.begin(), ids.end(), token) != ids.end() ? 1 : 0;
}

mixtral_status mixtral_chat_tokens(const mixtral_ctx* ctx, int32_t style, uint32_t flags,
                                   const mixtral_chat_message* messages, size_t n_messages, int32_t* tokens,
                                   size_t capacity, size_t* n_tokens) {
  return guarded([&] {
    const Engine& engine = engine_of(ctx);
    const Tokenizer& tokenizer = engine.model.require_tokenizer();
    const Output out(tokens, capacity, n_tokens, "tokens");
    require_flags(flags, MIXTRAL_CHAT_ESCAPE, "chat");
    const ForgedMarkers forged = (flags & MIXTRAL_CHAT_ESCAPE) != 0 ? ForgedMarkers::kEscape : ForgedMarkers::kRefuse;
    const ChatTemplate chat(tokenizer, style_of(style, engine.model), forged);
    out.write(chat.encode(read_messages(messages, n_messages, engine.model.config().vocab_size)));
  });
}

mixtral_status mixtral_hidden(const mixtral_ctx* ctx, const int32_t* tokens, size_t n_tokens, int32_t layer,
                              int32_t pooling, float* rows, size_t capacity, size_t* n_floats) {
  return guarded([&] {
    const LoadedModel& model = engine_of(ctx).model;
    const auto text = input(tokens, n_tokens, "tokens");
    const Output out(rows, capacity, n_floats, "rows");
    require(pooling >= MIXTRAL_POOL_NONE && pooling <= MIXTRAL_POOL_LAST, "hidden: pooling is ", pooling,
            ", expected MIXTRAL_POOL_*");
    Embedder embedder(model);
    embedder.require_text(text, layer);
    out.require_room((pooling == MIXTRAL_POOL_NONE ? n_tokens : 1) * static_cast<std::size_t>(model.config().dim));
    if (pooling == MIXTRAL_POOL_NONE) return out.write(embedder.hidden(text, layer).span());
    out.write(embedder.embed(text, static_cast<Pooling>(pooling), layer));
  });
}
