// The functions of mixtral.h that need no session, with arguments from the bytes.
#include <cstring>

#include "capi_player.hpp"

namespace mixtral::fuzz {

using enum Function;

// ---- without a handle ------------------------------------------------------------------------------------

void Player::constants() {
  expect(mixtral_version() == MIXTRAL_VERSION && std::strlen(mixtral_version_text()) >= 5, "the version is known");
  const auto status = static_cast<mixtral_status>(bytes_.number());
  expect(std::strlen(mixtral_status_text(status)) > 0, "every number has a status text");
  expect(std::strlen(mixtral_last_error()) < 1024, "the last error is at most 1023 bytes");
  for (const Function f : {version, version_text, status_text, last_error}) count(f);
}

void Player::init_structs() {
  const auto try_init = [&](Function function, auto init, auto kind) {
    using T = decltype(kind);
    std::array<unsigned char, 1100> memory;
    memory.fill(0xA5);
    const auto before = memory;
    const std::size_t size =
        bytes_.pick(std::array<std::size_t, 8>{sizeof(T), sizeof(T), sizeof(T) + 8, 1024, 0, 8, 1025, kHuge});
    T* const out = bytes_.chance(8) ? nullptr : reinterpret_cast<T*>(memory.data());
    const bool good = out != nullptr && size >= sizeof(T) && size <= 1024;
    call(function, {.invalid = !good, .want = MIXTRAL_OK}, [&] { return init(out, size); });
    const std::size_t written = good ? size : 0;
    expect(std::equal(memory.begin() + static_cast<std::ptrdiff_t>(written), memory.end(),
                      before.begin() + static_cast<std::ptrdiff_t>(written)) ||
               out == nullptr,
           "init writes the struct and nothing else");
  };
  switch (bytes_.below(4)) {
    case 0: try_init(params_init, mixtral_params_init, mixtral_params{}); break;
    case 1: try_init(session_params_init, mixtral_session_params_init, mixtral_session_params{}); break;
    case 2: try_init(sampler_params_init, mixtral_sampler_params_init, mixtral_sampler_params{}); break;
    default: try_init(generate_params_init, mixtral_generate_params_init, mixtral_generate_params{});
  }
}

// ---- a ctx -----------------------------------------------------------------------------------------------

void Player::ctx_create() {
  const World::Place& place = bytes_.chance(2) ? world_.places()[0] : bytes_.pick(world_.places());
  Struct<mixtral_params, offsetof(mixtral_params, bf16_products)> params(bytes_, mixtral_params_init);
  params->isa = bytes_.pick(std::array<std::int32_t, 8>{-1, -1, 0, 1, 2, 6, 7, -2});
  params->executor = bytes_.pick(std::array<std::int32_t, 8>{0, 0, 0, 2, 2, 1, 3, -1});
  params->n_threads = bytes_.pick(std::array<std::int32_t, 8>{1, 1, 1, 2, 3, 2, -1, 1025});
  const bool host = params->executor == MIXTRAL_EXECUTOR_HOST;
  const bool run = host != bytes_.chance(12);
  params->run = run ? run_callback() : nullptr;
  params->log = bytes_.chance(2) ? log_callback() : nullptr;
  // A struct of the first version ends before it.
  const bool first_version = params->struct_size == offsetof(mixtral_params, bf16_products);
  params->head = bytes_.pick(std::array<std::int32_t, 8>{0, 0, 0, 0, 1, 1, 2, -1});
  const bool defaults = bytes_.chance(12), no_place = bytes_.chance(16), no_path = bytes_.chance(16);
  const bool good_params = params.valid() && params->isa >= -1 && params->isa <= 6 && params->executor >= 0 &&
                           params->executor <= 2 && params->n_threads > 0 && params->n_threads <= 1024 && run == host &&
                           (first_version || params->head == 0 || params->head == 1);
  const bool head = defaults || first_version || params->head != MIXTRAL_HEAD_NONE;
  Terms terms{.invalid = no_place || no_path || (!defaults && !good_params)};
  // OpenMP may not be there.
  if (defaults || params->executor != MIXTRAL_EXECUTOR_OPENMP)
    terms.want = place.lacks_head && !head ? MIXTRAL_OK : place.status;
  if (live_ctxs().size() > world_.ctxs().size() + 2) return;
  mixtral_ctx* made = nullptr;
  const mixtral_status status = call(Function::ctx_create, terms, [&] {
    return mixtral_ctx_create(no_path ? nullptr : place.path.data(), no_path ? 3 : place.path.size(),
                              defaults ? nullptr : params.get(), no_place ? nullptr : &made);
  });
  expect((made != nullptr) == (status == MIXTRAL_OK), "a ctx is there if and only if it was made");
  if (made == nullptr) return;
  ctxs_.push_back(std::make_unique<LiveCtx>(LiveCtx{made, place.has_tokenizer, false, head}));
}

void Player::ctx_destroy() {
  CtxArgument c = any_ctx();
  if (c.ctx != nullptr && c.ctx->shared) return;
  if (c.ctx != nullptr) c.ctx->alive = false;
  call(Function::ctx_destroy, {}, [&] {
    mixtral_ctx_destroy(c.handle);
    return MIXTRAL_OK;
  });
}

void Player::ctx_info() {
  const CtxArgument c = any_ctx();
  OutStruct<mixtral_info> info(bytes_);
  const mixtral_status status =
      call(Function::ctx_info, {.invalid = c.ctx == nullptr || !info.valid(), .want = MIXTRAL_OK},
           [&] { return mixtral_ctx_info(c.handle, info.get()); });
  info.check(status);
  if (status != MIXTRAL_OK) return;
  expect(info->vocab_size == static_cast<std::int64_t>(world_.vocab_size()), "a ctx knows its vocabulary");
  expect((info->n_pieces > 0) == c.ctx->tokenizer, "a ctx knows its tokenizer");
}

void Player::ctx_routing_counts() {
  const CtxArgument c = any_ctx();
  Out<std::uint64_t> out(bytes_);
  const mixtral_status status = call(Function::ctx_routing_counts, {.invalid = c.ctx == nullptr || !out.valid()}, [&] {
    return mixtral_ctx_routing_counts(c.handle, out.data(), out.capacity(), out.size());
  });
  out.check(status);
  if (status == MIXTRAL_OK) expect(out.items().size() == 2 * 4, "there is a count for each expert of each layer");
}

void Player::ctx_reset_routing_counts() {
  const CtxArgument c = any_ctx();
  call(Function::ctx_reset_routing_counts, {.invalid = c.ctx == nullptr, .want = MIXTRAL_OK},
       [&] { return mixtral_ctx_reset_routing_counts(c.handle); });
}

// ---- text ------------------------------------------------------------------------------------------------

void Player::tokenize() {
  const CtxArgument c = any_ctx();
  const Text text(bytes_);
  const std::uint32_t flags = bytes_.pick(kFlags);
  Out<std::int32_t> out(bytes_);
  Terms terms{.invalid = c.ctx == nullptr || (c.ctx->tokenizer && (text.invalid || flags > 3 || !out.valid()))};
  if (c.ctx != nullptr && !c.ctx->tokenizer) terms.want = MIXTRAL_NOT_FOUND;
  const mixtral_status status = call(Function::tokenize, terms, [&] {
    return mixtral_tokenize(c.handle, text.data, text.size, flags, out.data(), out.capacity(), out.size());
  });
  out.check(status);
}

void Player::detokenize() {
  const CtxArgument c = any_ctx();
  const Ids ids(bytes_, world_.vocab_size());
  Out<char> out(bytes_);
  Terms terms{.invalid = c.ctx == nullptr ||
                         (c.ctx->tokenizer && (ids.null || !out.valid() || (!ids.valid && ids.data != nullptr)))};
  if (c.ctx != nullptr && !c.ctx->tokenizer) terms.want = MIXTRAL_NOT_FOUND;
  const mixtral_status status = call(Function::detokenize, terms, [&] {
    return mixtral_detokenize(c.handle, ids.data, ids.n, out.data(), out.capacity(), out.size());
  });
  out.check(status);
}

void Player::token_bytes() {
  const CtxArgument c = any_ctx();
  const auto token = static_cast<std::int32_t>(bytes_.chance(8) ? bytes_.number() : bytes_.byte());
  Out<char> out(bytes_);
  const bool outside = token < 0 || token >= static_cast<std::int32_t>(world_.vocab_size());
  Terms terms{.invalid = c.ctx == nullptr || (c.ctx->tokenizer && (outside || !out.valid()))};
  if (c.ctx != nullptr && !c.ctx->tokenizer) terms.want = MIXTRAL_NOT_FOUND;
  const mixtral_status status = call(Function::token_bytes, terms, [&] {
    return mixtral_token_bytes(c.handle, token, out.data(), out.capacity(), out.size());
  });
  out.check(status);
}

void Player::token_is_eos() {
  const CtxArgument c = any_ctx();
  const auto token = static_cast<std::int32_t>(bytes_.byte()) - 1;
  const std::int32_t answer = mixtral_token_is_eos(c.handle, token);
  expect(answer == (c.ctx != nullptr && token == 2 ? 1 : 0), "the end token is known");
  count(Function::token_is_eos);
}

void Player::hidden() {
  const CtxArgument c = any_ctx();
  const Ids ids(bytes_, world_.vocab_size());
  const auto layer = bytes_.pick(std::array<std::int32_t, 8>{-1, -1, 0, 1, 2, 3, -2, 1 << 30});
  const auto pooling = bytes_.pick(std::array<std::int32_t, 8>{0, 0, 1, 1, 2, 2, 3, -1});
  Out<float> out(bytes_);
  const bool good = !ids.null && ids.valid && ids.n > 0 && layer >= -1 && layer <= 2 && pooling >= 0 && pooling <= 2;
  const bool too_long = ids.n > 40;  // positions of these models
  Terms terms{.invalid = c.ctx == nullptr || !out.valid() || (!good && !too_long)};
  const mixtral_status status = call(Function::hidden, terms, [&] {
    return mixtral_hidden(c.handle, ids.data, ids.n, layer, pooling, out.data(), out.capacity(), out.size());
  });
  out.check(status);
}

}  // namespace mixtral::fuzz
