// A binding of libmixtral's C ABI with koffi: copy it, and add what you need of mixtral.h. koffi reads prototypes as
// they stand there; _Out_ and _Inout_ say what is copied back.
import { promisify } from 'node:util';
import koffi from 'koffi';

const lib = koffi.load(process.env.MIXTRAL_LIBRARY ?? 'libmixtral.so.1');

koffi.opaque('mixtral_ctx');
koffi.opaque('mixtral_session');
koffi.proto('int32_t mixtral_token_fn(void *user, int32_t token, const uint8_t *text, size_t text_size)');

const int64s = (...names) => Object.fromEntries(names.map((name) => [name, 'int64_t']));
const Info = koffi.struct('mixtral_info', {
  struct_size: 'uint32_t',
  isa: 'int32_t',
  executor: 'int32_t',
  n_threads: 'int32_t',
  ...int64s('dim', 'hidden_dim', 'n_layers', 'n_heads', 'n_kv_heads', 'head_dim', 'n_experts', 'n_experts_per_tok'),
  ...int64s('vocab_size', 'max_positions', 'sliding_window', 'n_parameters', 'n_active', 'weight_bytes'),
  ...int64s('kv_bytes_per_page', 'n_pieces'),
  bos_id: 'int32_t',
  eos_id: 'int32_t',
  add_bos: 'int32_t',
  chat_style: 'int32_t',
});
const SamplerParams = koffi.struct('mixtral_sampler_params', {
  struct_size: 'uint32_t',
  top_k: 'int32_t',
  temperature: 'float',
  top_p: 'float',
  min_p: 'float',
  repetition_penalty: 'float',
  seed: 'uint64_t',
});
const GenerateParams = koffi.struct('mixtral_generate_params', {
  struct_size: 'uint32_t',
  flags: 'uint32_t',
  max_tokens: 'int64_t',
  stop_strings: 'void *',
  n_stop_strings: 'size_t',
  stop_tokens: 'int32_t *',
  n_stop_tokens: 'size_t',
  on_token: 'mixtral_token_fn *',
  user: 'void *',
});

const f = (prototype) => lib.func(prototype);
const lastError = f('const char *mixtral_last_error()');
const ctxCreate = f(
  'int32_t mixtral_ctx_create(const uint8_t *path, size_t path_size, const void *params, _Out_ mixtral_ctx **ctx)');
const ctxDestroy = f('void mixtral_ctx_destroy(mixtral_ctx *ctx)');
const ctxInfo = f('int32_t mixtral_ctx_info(const mixtral_ctx *ctx, _Inout_ mixtral_info *info)');
const tokenize = f('int32_t mixtral_tokenize(const mixtral_ctx *ctx, const uint8_t *text, size_t text_size, ' +
  'uint32_t flags, _Out_ int32_t *tokens, size_t capacity, _Out_ size_t *n_tokens)');
const routingCounts = f('int32_t mixtral_ctx_routing_counts(mixtral_ctx *ctx, _Out_ uint64_t *counts, ' +
  'size_t capacity, _Out_ size_t *n_counts)');
const sessionCreate = f(
  'int32_t mixtral_session_create(mixtral_ctx *ctx, const void *params, _Out_ mixtral_session **session)');
const sessionDestroy = f('void mixtral_session_destroy(mixtral_session *session)');
const sessionCancel = f('int32_t mixtral_session_cancel(mixtral_session *session)');
const sessionClearCancel = f('int32_t mixtral_session_clear_cancel(mixtral_session *session)');
const sessionError = f('int32_t mixtral_session_error(mixtral_session *session, _Out_ uint8_t *text, ' +
  'size_t capacity, _Out_ size_t *text_size)');
const feed = f('int32_t mixtral_session_feed(mixtral_session *session, const int32_t *tokens, size_t n_tokens, ' +
  'uint32_t flags)');
const samplerInit = f(
  'int32_t mixtral_sampler_params_init(_Out_ mixtral_sampler_params *params, size_t struct_size)');
const setSampler = f(
  'int32_t mixtral_session_set_sampler(mixtral_session *session, const mixtral_sampler_params *params)');
const generateInit = f(
  'int32_t mixtral_generate_params_init(_Out_ mixtral_generate_params *params, size_t struct_size)');
const generate = f('int32_t mixtral_session_generate(mixtral_session *session, ' +
  'const mixtral_generate_params *params, void *result)');
const generateAsync = promisify(generate.async);

const BUFFER_TOO_SMALL = 11;
const TOKENIZE_BOS = 1;

export class MixtralError extends Error {
  constructor(status, text) {
    super(text);
    this.status = status; // one of MIXTRAL_*
  }
}

function check(status) {
  if (status !== 0) throw new MixtralError(status, lastError());
}

// Frees handles whose owners were forgotten; close() does it at once.
const forgotten = new FinalizationRegistry(({ destroy, handle }) => destroy(handle));

class Handle {
  #destroy;

  constructor(handle, destroy) {
    this.handle = handle;
    this.#destroy = destroy;
    forgotten.register(this, { destroy, handle }, this);
  }

  close() {
    forgotten.unregister(this);
    this.#destroy(this.handle);
    this.handle = null; // from now on an error and no crash
  }
}

// A model, its tokenizer and its threads.
export class Context extends Handle {
  constructor(path) {
    const bytes = Buffer.from(path), out = [null];
    check(ctxCreate(bytes, bytes.length, null, out));
    super(out[0], ctxDestroy);
  }

  info() {
    const info = Object.fromEntries(Object.keys(Info.members).map((name) => [name, 0]));
    info.struct_size = koffi.sizeof(Info);
    check(ctxInfo(this.handle, info));
    return info;
  }

  tokenize(text) {
    const bytes = Buffer.from(text), n = [0];
    let tokens = new Int32Array((bytes.length >> 1) + 8);
    for (;;) {
      const status = tokenize(this.handle, bytes, bytes.length, TOKENIZE_BOS, tokens, tokens.length, n);
      if (status !== BUFFER_TOO_SMALL) {
        check(status);
        return tokens.subarray(0, n[0]);
      }
      tokens = new Int32Array(n[0]);
    }
  }

  // For each layer, n_experts BigInts: counts may pass 2^53.
  routingCounts() {
    const { n_layers, n_experts } = this.info();
    const counts = new BigUint64Array(n_layers * n_experts);
    check(routingCounts(this.handle, counts, counts.length, [0]));
    return Array.from({ length: n_layers }, (_, layer) => counts.subarray(layer * n_experts, (layer + 1) * n_experts));
  }
}

// One sequence of tokens, for one call at a time. It keeps the model alive by itself: close in any order.
export class Session extends Handle {
  #generating = false;
  #closing = false;

  constructor(context, { temperature = 1 } = {}) {
    const out = [null], params = {};
    check(sessionCreate(context.handle, null, out));
    super(out[0], sessionDestroy);
    check(samplerInit(params, koffi.sizeof(SamplerParams)));
    check(setSampler(this.handle, { ...params, temperature }));
  }

  feed(tokens) {
    check(feed(this.handle, tokens, tokens.length, 0));
  }

  // While another thread generates, or is about to, the handle must stay: the text is ended first, then the handle.
  close() {
    if (!this.#generating) return super.close();
    this.#closing = true;
    sessionCancel(this.handle);
  }

  // Calls onToken(token, text) for each token; false ends the text. What it throws comes out of here. `signal` is an
  // AbortSignal. The work is done on another thread, and koffi brings the callbacks back to this one: the event loop
  // runs on.
  async generate(maxTokens, onToken, { signal } = {}) {
    if (this.#generating) throw new Error('this session is generating already');
    signal?.throwIfAborted();
    let thrown = null;
    const callback = koffi.register((_user, token, text, size) => {
      try { // koffi would take an exception for the result 0, and go on
        return onToken(token, size ? koffi.decode.string(text, Number(size)) : '') === false ? 1 : 0;
      } catch (error) {
        thrown = { error };
        return 1;
      }
    }, 'mixtral_token_fn *');
    const cancel = () => sessionCancel(this.handle);
    this.#generating = true;
    try {
      signal?.addEventListener('abort', cancel);
      const params = {};
      check(generateInit(params, koffi.sizeof(GenerateParams)));
      const status = await generateAsync(this.handle, { ...params, max_tokens: maxTokens, on_token: callback }, null);
      if (thrown) throw thrown.error;
      signal?.throwIfAborted();
      if (status !== 0) throw new MixtralError(status, this.#error());
    } finally {
      signal?.removeEventListener('abort', cancel);
      sessionClearCancel(this.handle); // it may have come after the end
      koffi.unregister(callback); // else its slot, one of some thousand, is lost
      this.#generating = false;
      if (this.#closing) super.close();
    }
  }

  // mixtral_last_error() belongs to the thread that worked, which nobody can ask any more; the session knows too.
  #error() {
    const text = Buffer.alloc(1024), n = [0];
    check(sessionError(this.handle, text, text.length, n));
    return text.toString('utf8', 0, n[0]);
  }
}
