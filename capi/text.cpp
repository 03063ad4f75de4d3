// Texts, token ids, and texts as vectors.
#include <algorithm>

#include "handles.hpp"
#include "mixtral/runtime/embedding.hpp"
#include "options.hpp"

using namespace mixtral;
using namespace mixtral::capi;

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
