/**
 * @file mixtral.h
 * The C ABI of mixtral: Mixtral-type sparse mixture-of-experts language models on a CPU, inside your program.
 *
 *     mixtral_ctx*      a model, its tokenizer, and the threads that compute: usually one per process
 *     mixtral_session*  one sequence of tokens on it: one per conversation
 *
 * Rules that hold for every function:
 *
 * - Results. A function that can fail returns a mixtral_status and writes its out-parameters on success only.
 *   mixtral_last_error() then says what was wrong, with names and numbers. An error changes nothing unless the
 *   function's comment says otherwise. Nothing is thrown through this interface, no function prints, aborts,
 *   exits, reads the environment, or installs signal handlers; running out of memory is a status.
 * - NULL and other mistakes. A required pointer that is NULL, a ctx in place of a session, a number out of range:
 *   MIXTRAL_INVALID_ARGUMENT. A handle that was destroyed must not be used again, as with free().
 * - Buffers. Where a function fills `(T* out, size_t capacity, size_t* n)`, `*n` becomes the number of elements that
 *   the answer has. If capacity is too small, nothing is written to `out`, `*n` is set, and the status is
 *   MIXTRAL_BUFFER_TOO_SMALL. `out` may be NULL if capacity is 0: that asks for the size.
 * - Texts are pointer and length in bytes, UTF-8, without a terminating 0. A pointer may be NULL if its length is 0.
 *   Texts and arrays are read during the call only.
 * - Structs begin with `struct_size`, which the caller sets to sizeof; `mixtral_*_init()` does that and fills in
 *   the defaults. Later versions only add fields at the end: a program that was compiled with an older header
 *   keeps working, and a newer program's fields that an older library does not know must be zero.
 * - Threads. All functions of a ctx may be called from several threads. A session belongs to one thread at a time:
 *   a call that meets another one on the same session, also from inside a callback, returns MIXTRAL_BUSY and changes
 *   nothing; mixtral_session_cancel() may be called at any time. The steps of all sessions of a ctx take turns.
 * - Callbacks are called by the thread that called the function, never by a thread of the library, and carry the `user`
 *   pointer that was given with them. They may call any function on other sessions; of their own session they may only
 *   cancel or destroy it (the rest is MIXTRAL_BUSY). They must return normally: no longjmp. (A C++ exception ends the
 *   call with MIXTRAL_INTERNAL.)
 * - Floating point. Whatever rounding mode, flushing of denormals or traps (feenableexcept) the calling thread and those
 *   of a host's pool have, the library computes in its own: to the nearest, denormals kept, nothing traps. The thread
 *   gets its own back, sticky flags included, also after an error. Callbacks run in the host's environment;
 *   mixtral_params::run may find sticky flags of the library's work there, and what it changes does not last.
 * - Signals and stack. Threads of the library are named "mixtral-1", "mixtral-2" ... and block all signals but those of
 *   their own faults (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS), so a signal that is sent to the process is the
 *   host's. They have stacks of the system's default size. 64 KiB of stack are enough for a thread that calls functions
 *   of this interface, beside what the callbacks need. OpenMP's threads are as its run-time makes them.
 * - fork(). A child that was forked while nobody was inside a call may go on with its copies of ctx and sessions, on
 *   one thread, as threads are not forked; its own ctx has all of them (MIXTRAL_EXECUTOR_OPENMP: see there). If another
 *   thread was computing, what it used is of no use in the child: steps, and all calls on that thread's session, return
 *   MIXTRAL_BUSY at once and for good, and only destroying is left. Handles may be destroyed in a child in any case. Do
 *   not fork while another thread is inside the process's first mixtral_ctx_create(), nor inside mixtral_params::run.
 *
 * Numbers that stand here never change their meaning. "Since" is the version of the library that brought a function.
 */
#ifndef MIXTRAL_H
#define MIXTRAL_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define MIXTRAL_API
#elif defined(__GNUC__)
#define MIXTRAL_API __attribute__((visibility("default")))
#else
#define MIXTRAL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- versions and errors -------------------------------------------------------------------------------- */

/** The version of this header. A library of the same major version with an equal or higher minor one fits it. */
#define MIXTRAL_VERSION_MAJOR 1
#define MIXTRAL_VERSION_MINOR 2
#define MIXTRAL_VERSION_PATCH 0
#define MIXTRAL_VERSION (MIXTRAL_VERSION_MAJOR * 10000 + MIXTRAL_VERSION_MINOR * 100 + MIXTRAL_VERSION_PATCH)

/** What became of a call: 0 or one of the numbers below. */
typedef int32_t mixtral_status;

enum {
  MIXTRAL_OK = 0,
  MIXTRAL_INVALID_ARGUMENT = 1, /**< the caller's mistake */
  MIXTRAL_NOT_FOUND = 2,        /**< a file or a part of the model does not exist */
  MIXTRAL_IO = 3,               /**< the system refused: permissions, read errors, threads */
  MIXTRAL_BAD_FORMAT = 4,       /**< a file breaks the rules of its format */
  MIXTRAL_UNSUPPORTED = 5,      /**< legal, but not implemented here */
  MIXTRAL_OUT_OF_MEMORY = 6,
  MIXTRAL_CONTEXT_FULL = 7,     /**< the session has no room left */
  MIXTRAL_CANCELLED = 8,        /**< mixtral_session_cancel(), or a callback that said stop */
  MIXTRAL_INTERNAL = 9,         /**< a defect of the library, or an exception from a callback */
  MIXTRAL_BUSY = 10,            /**< another call is using this session; or see "fork()" above */
  MIXTRAL_BUFFER_TOO_SMALL = 11 /**< see "Buffers" above */
};

/**
 * The version of the library that is running, as MIXTRAL_VERSION counts.
 *
 * Errors: none. Threads: any. Since 1.0. */
MIXTRAL_API uint32_t mixtral_version(void);

/**
 * The same as text, "1.2.0".
 *
 * @return A text that lives as long as the library.
 *
 * Errors: none. Threads: any. Since 1.0. */
MIXTRAL_API const char* mixtral_version_text(void);

/**
 * A short name of a status: "not found".
 *
 * @param status  any number; unknown ones give "unknown status".
 * @return A text that lives as long as the library.
 *
 * Errors: none. Threads: any. Since 1.0. */
MIXTRAL_API const char* mixtral_status_text(mixtral_status status);

/**
 * What went wrong in the last call of this thread that failed, in one sentence with names and numbers.
 *
 * @return Never NULL; empty if no call of this thread has failed; at most 1023 bytes: of a longer text, one with a long
 *   path in it, the middle is left out ("..."), so that the reason stays. Valid until this thread's next call that fails.
 *   A call that succeeds leaves it as it is.
 *
 * Errors: none. Threads: any; each thread has its own text. Since 1.0. */
MIXTRAL_API const char* mixtral_last_error(void);

/* ---- a model -------------------------------------------------------------------------------------------- */

/** A model, its tokenizer and the threads that compute. */
typedef struct mixtral_ctx mixtral_ctx;

/** Caps for mixtral_params::isa, and what mixtral_info::isa reports. A cap of another architecture means REFERENCE. */
enum {
  MIXTRAL_ISA_BEST = -1,
  MIXTRAL_ISA_REFERENCE = 0,  /**< plain code, slow */
  MIXTRAL_ISA_AVX2 = 1,       /**< AVX2, FMA, F16C */
  MIXTRAL_ISA_AVX512 = 2,     /**< AVX-512 F, CD, DQ, BW, VL */
  MIXTRAL_ISA_AVX512_VNNI = 3, /**< and VNNI, for packed weights */
  MIXTRAL_ISA_AMX_INT8 = 4,    /**< and AMX, for packed weights and many tokens, where it is faster */
  MIXTRAL_ISA_AVX2_VNNI = 5,   /**< AVX2 and AVX-VNNI, for packed weights; not part of the AVX-512 ones */
  MIXTRAL_ISA_NEON = 6         /**< NEON, on 64-bit ARM */
};

/** Values of mixtral_params::bf16_products: how bf16 weights are multiplied. Packed weights and the router do not change. */
enum {
  MIXTRAL_BF16_FLOAT32 = 0, /**< in float32: the same bits on every CPU */
  MIXTRAL_BF16_ROUNDED = 1  /**< by activations rounded to bf16, in pairs with AVX-512 BF16 or AMX. A token's logits
                                 still depend on its own sequence alone, but not every CPU computes the same bits. */
};

/** Values of mixtral_params::import_weights: what quantised weights of a GGUF file become in memory. Since 1.2. */
enum {
  MIXTRAL_IMPORT_PACKED = 0, /**< Q8_0, Q4_0, Q4_1 and Q4_K as they are; others P4 or P8, whichever is nearer in bytes,
                                with their error on top of the file's */
  MIXTRAL_IMPORT_FLOAT = 1   /**< exactly, in four bytes a weight: for checks and small models */
};

/** Values of mixtral_params::head. Since 1.2. */
enum {
  MIXTRAL_HEAD_REQUIRED = 0,
  MIXTRAL_HEAD_NONE = 1 /**< the head is not opened, and need not be there: for mixtral_hidden(). What wants logits
                             (eval, step, generate, say, answer) returns NOT_FOUND and leaves the session's tokens
                             queued, also if the head is the embedding. */
};

/** Values of mixtral_params::executor. */
enum {
  MIXTRAL_EXECUTOR_THREADS = 0, /**< threads of the ctx's own, which sleep between steps */
  MIXTRAL_EXECUTOR_OPENMP = 1,  /**< OpenMP's threads, shared with the host's own OpenMP code. OpenMP's run-time ends
                                     the process if the system refuses it a thread; GNU's waits for ever in the child
                                     of a fork() if the thread that forked had used it and opens a new ctx there. */
  MIXTRAL_EXECUTOR_HOST = 2     /**< the host's own pool, through mixtral_params::run */
};

/** Values of the `level` of a log message. */
enum { MIXTRAL_LOG_INFO = 0, MIXTRAL_LOG_WARNING = 1 };

/**
 * Receives messages about a ctx: what was loaded, what is missing.
 *
 * @param user       mixtral_params::log_user.
 * @param level      MIXTRAL_LOG_*.
 * @param text       one line, without a line end; valid during the call.
 * @param text_size  its bytes.
 *
 * Threads: the thread whose call has something to say. Since 1.0. */
typedef void (*mixtral_log_fn)(void* user, int32_t level, const char* text, size_t text_size);

/** Work of a step; see mixtral_run_fn. */
typedef void (*mixtral_job_fn)(void* state);

/**
 * The host's own threads: call `job(state)` n_jobs times, as many of them at the same time as there are threads for it,
 * and return when all calls have returned. The calls share out the work among themselves, so fewer calls, even none,
 * are slower and still right; more than n_jobs do nothing. A call may come from any thread, the calling one included,
 * but none may run or begin after this function has returned.
 *
 * @param user    mixtral_params::run_user.
 * @param n_jobs  at most mixtral_params::n_threads.
 * @param job     never fails and never waits for another job.
 * @param state   its argument.
 *
 * Threads: the thread that runs a step; never two at a time for one ctx. It must not start another step of the same
 * ctx: that returns MIXTRAL_BUSY. Since 1.0. */
typedef void (*mixtral_run_fn)(void* user, int32_t n_jobs, mixtral_job_fn job, void* state);

/** Options of a ctx. */
typedef struct mixtral_params {
  uint32_t struct_size; /**< sizeof(mixtral_params) */
  int32_t isa;          /**< use no better instruction set than this; default MIXTRAL_ISA_BEST */
  int32_t executor;     /**< MIXTRAL_EXECUTOR_*; default THREADS */
  int32_t n_threads;    /**< threads that compute, the calling one included; default 0: the CPUs this process may use */
  mixtral_run_fn run;   /**< required by MIXTRAL_EXECUTOR_HOST, otherwise NULL */
  void* run_user;
  mixtral_log_fn log; /**< default NULL: nothing is said */
  void* log_user;
  int32_t bf16_products; /**< MIXTRAL_BF16_*, default MIXTRAL_BF16_FLOAT32. Since 1.1. */
  int32_t reserved;      /**< 0. Since 1.1. */
  /** 1: weights are copied into memory of the process, huge pages where the system has them, and the files are closed:
   * running is faster, opening slower. Default 0: they are used where the files are mapped. Since 1.1. */
  int32_t resident;
  int32_t reserved2; /**< 0. Since 1.1. */
  int32_t import_weights; /**< MIXTRAL_IMPORT_*, default MIXTRAL_IMPORT_PACKED. Since 1.2. */
  int32_t head;           /**< MIXTRAL_HEAD_*, default MIXTRAL_HEAD_REQUIRED. Since 1.2. */
} mixtral_params;

/**
 * Fills in the defaults.
 *
 * @param params       what to fill.
 * @param struct_size  sizeof(mixtral_params), as the caller's header has it.
 * @return MIXTRAL_OK; INVALID_ARGUMENT.
 *
 * Threads: any. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_params_init(mixtral_params* params, size_t struct_size);

/**
 * Opens a model: maps its files and checks them. Unless params say `resident` no weight is copied (but quantised ones of a
 * GGUF file are imported), and the files must not be changed or cut while the ctx or a session of it exists.
 *
 * @param path       the directory: a Hugging Face checkpoint, or a Mistral one (params.json); or a packed or GGUF file,
 *   which brings its tokenizer along (of a split one the first).
 * @param path_size  its bytes.
 * @param params     NULL: the defaults.
 * @param ctx        receives the handle; free it with mixtral_ctx_destroy().
 * @return MIXTRAL_OK; INVALID_ARGUMENT; NOT_FOUND, IO, BAD_FORMAT or UNSUPPORTED, with the file and the tensor or
 *   field in the text; IO, with the number of threads in the text, if the system refuses one; OUT_OF_MEMORY.
 *
 * Threads: any. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_ctx_create(const char* path, size_t path_size, const mixtral_params* params,
                                              mixtral_ctx** ctx);

/**
 * Frees a handle. Sessions that were made with it keep model and threads alive until the last of them is gone, and
 * work on; callbacks of the ctx must be valid until then.
 *
 * @param ctx  may be NULL. Must not be in use by another thread.
 *
 * Errors: none. Threads: any. Since 1.0. */
MIXTRAL_API void mixtral_ctx_destroy(mixtral_ctx* ctx);

/** What a ctx is made of. Dimensions are named as in the checkpoint. */
typedef struct mixtral_info {
  uint32_t struct_size; /**< sizeof(mixtral_info) */
  int32_t isa;          /**< the instruction set in use */
  int32_t executor;     /**< MIXTRAL_EXECUTOR_* */
  int32_t n_threads;    /**< threads that compute */
  int64_t dim;          /**< width of the residual stream */
  int64_t hidden_dim;   /**< width of an expert */
  int64_t n_layers;
  int64_t n_heads;
  int64_t n_kv_heads;
  int64_t head_dim;
  int64_t n_experts;
  int64_t n_experts_per_tok;
  int64_t vocab_size;        /**< logits per row */
  int64_t max_positions;     /**< the longest sequence */
  int64_t sliding_window;    /**< keys that a token sees; 0: all before it */
  int64_t n_parameters;      /**< of these weights */
  int64_t n_active;          /**< parameters that work on one token */
  int64_t weight_bytes;      /**< of all weights that are open: with MIXTRAL_HEAD_NONE without the head */
  int64_t kv_bytes_per_page; /**< memory of 32 positions of one session, in MIXTRAL_KV_BF16 */
  int64_t n_pieces;          /**< of the tokenizer; 0: this model has none, and works with token ids only */
  int32_t bos_id;            /**< -1: none */
  int32_t eos_id;            /**< the first one; -1: none. mixtral_token_is_eos() knows all. */
  int32_t add_bos;           /**< 1: prompts of this model begin with BOS */
  int32_t chat_style;        /**< what MIXTRAL_CHAT_AUTO is; 0: no tokenizer, or a template of no known style */
} mixtral_info;

/**
 * Describes a ctx.
 *
 * @param ctx   the ctx.
 * @param info  struct_size set by the caller; receives the rest. Fields that this library does not know become 0.
 * @return MIXTRAL_OK; INVALID_ARGUMENT.
 *
 * Threads: any. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_ctx_info(const mixtral_ctx* ctx, mixtral_info* info);

/* ---- text ----------------------------------------------------------------------------------------------- */

/** Flags of mixtral_tokenize(). */
enum {
  MIXTRAL_TOKENIZE_BOS = 1,    /**< begin with BOS if mixtral_info::add_bos is 1 */
  MIXTRAL_TOKENIZE_SPECIAL = 2 /**< special tokens that the text spells are tokens, as in Hugging Face's tokenizers: not
                                    for texts that a stranger wrote. Since 1.1 */
};

/**
 * Text to token ids. "<s>" and other special tokens in the text are ordinary characters unless asked for; added tokens
 * that are not special are found. Bytes that are not UTF-8 count as U+FFFD.
 *
 * @param ctx        the ctx.
 * @param text       the text.
 * @param text_size  its bytes.
 * @param flags      MIXTRAL_TOKENIZE_*, added.
 * @param tokens     receives the ids.
 * @param capacity   its elements.
 * @param n_tokens   receives how many ids there are.
 * @return MIXTRAL_OK; BUFFER_TOO_SMALL; INVALID_ARGUMENT; NOT_FOUND if the model has no tokenizer; OUT_OF_MEMORY.
 *
 * Threads: any. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_tokenize(const mixtral_ctx* ctx, const char* text, size_t text_size, uint32_t flags,
                                            int32_t* tokens, size_t capacity, size_t* n_tokens);

/**
 * Token ids to text, always valid UTF-8. The space that tokenizing puts in front is taken off; control tokens,
 * and ids of the model that the tokenizer has no piece for, are silent.
 *
 * @param ctx        the ctx.
 * @param tokens     the ids.
 * @param n_tokens   how many.
 * @param text       receives the text, without a terminating 0.
 * @param capacity   its bytes.
 * @param text_size  receives the text's bytes.
 * @return MIXTRAL_OK; BUFFER_TOO_SMALL; INVALID_ARGUMENT, also for an id outside the vocabulary; NOT_FOUND if the model
 *   has no tokenizer; OUT_OF_MEMORY.
 *
 * Threads: any. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_detokenize(const mixtral_ctx* ctx, const int32_t* tokens, size_t n_tokens,
                                              char* text, size_t capacity, size_t* text_size);

/**
 * What one id adds to a text: its piece with its spaces, the byte of a byte token (perhaps no UTF-8 on its own),
 * nothing for a control token.
 *
 * @param ctx         the ctx.
 * @param token       the id.
 * @param bytes       receives the bytes.
 * @param capacity    how many it can take.
 * @param bytes_size  receives how many there are.
 * @return MIXTRAL_OK; BUFFER_TOO_SMALL; INVALID_ARGUMENT; NOT_FOUND if the model has no tokenizer.
 *
 * Threads: any. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_token_bytes(const mixtral_ctx* ctx, int32_t token, char* bytes, size_t capacity,
                                               size_t* bytes_size);

/**
 * Whether an id ends a text of this model.
 *
 * @param ctx    the ctx.
 * @param token  any number.
 * @return 1 if it does, otherwise 0; 0 also if ctx is not a ctx.
 *
 * Errors: none. Threads: any. Since 1.0. */
MIXTRAL_API int32_t mixtral_token_is_eos(const mixtral_ctx* ctx, int32_t token);

/** Values of mixtral_chat_message::role. */
enum { MIXTRAL_ROLE_SYSTEM = 0, MIXTRAL_ROLE_USER = 1, MIXTRAL_ROLE_ASSISTANT = 2 };

/** Styles of mixtral_chat_tokens() and mixtral_chat_begin(). */
enum {
  MIXTRAL_CHAT_AUTO = 0, /**< as the model's chat_template is, which has to be of one of these styles; without one V3 if
                              the tokenizer has [INST] and [/INST] as control tokens, otherwise V1 */
  MIXTRAL_CHAT_V1 = 1,   /**< Mixtral 8x7B Instruct: "[INST] " and " [/INST]" are ordinary text */
  MIXTRAL_CHAT_V3 = 3,   /**< Mixtral 8x22B Instruct: they are control tokens */
  MIXTRAL_CHAT_CHATML = 100 /**< many fine-tunes: the tokens <|im_start|> and <|im_end|>. Since 1.1 */
};

/** Flags of mixtral_chat_tokens() and mixtral_chat_begin(). */
enum {
  MIXTRAL_CHAT_ESCAPE = 1 /**< a message that contains a marker of the style ([INST] or [/INST] in V1, in CHATML the
                               markers if they are no special tokens) is changed so that it cannot be taken for the end
                               of a turn; without this flag it is refused */
};

/** One message of a conversation. In an array all elements have the same struct_size. */
typedef struct mixtral_chat_message {
  uint32_t struct_size; /**< sizeof(mixtral_chat_message) */
  int32_t role;         /**< MIXTRAL_ROLE_* */
  const char* text;
  size_t text_size;
  const int32_t* tokens; /**< an assistant's answer as it was drawn, without EOS: used instead of `text`, so that what
                              the session has computed of it stays usable; or NULL */
  size_t n_tokens;
} mixtral_chat_message;

/**
 * The token ids of a whole conversation: an optional system message, then user and assistant in turns. Give them to
 * mixtral_session_set_tokens(), which computes only what is new, then generate the answer.
 *
 * @param ctx         the ctx.
 * @param style       MIXTRAL_CHAT_*.
 * @param flags       0 or MIXTRAL_CHAT_ESCAPE.
 * @param messages    the conversation; ends with the user's message if an answer shall follow.
 * @param n_messages  how many.
 * @param tokens      receives the ids.
 * @param capacity    its elements.
 * @param n_tokens    receives how many ids there are.
 * @return MIXTRAL_OK; BUFFER_TOO_SMALL; INVALID_ARGUMENT, with the index of the message: roles out of order, a forged
 *   marker, ids outside the vocabulary; UNSUPPORTED if AUTO meets a template of no known style; NOT_FOUND if the model
 *   has no tokenizer; OUT_OF_MEMORY.
 *
 * Threads: any. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_chat_tokens(const mixtral_ctx* ctx, int32_t style, uint32_t flags,
                                               const mixtral_chat_message* messages, size_t n_messages, int32_t* tokens,
                                               size_t capacity, size_t* n_tokens);

/* ---- a session ------------------------------------------------------------------------------------------ */

/** One sequence of tokens: computed ones, whose keys and values are kept, and behind them queued ones. */
typedef struct mixtral_session mixtral_session;

/** Flags of mixtral_session_params. */
enum { MIXTRAL_SESSION_RECORD_ROUTES = 1 /**< keep every token's experts for mixtral_session_routes() */ };

/** How hidden rows of a text become one vector. Since 1.1. */
enum {
  MIXTRAL_POOL_NONE = 0, /**< they do not: all rows */
  MIXTRAL_POOL_MEAN = 1, /**< their mean, of length 1 */
  MIXTRAL_POOL_LAST = 2  /**< the last one, which has seen all tokens, of length 1 */
};

/** A layer of mixtral_hidden(): what the head reads, behind the last layer and the final norm. Since 1.1. */
enum { MIXTRAL_HIDDEN_FINAL = -1 };

/**
 * Hidden states of a text, or its embedding. Reads the tokens from position 0, as a session of the ctx would, without
 * computing logits, so that the ctx may do without the head (mixtral_params::head); the rows are those that a session
 * has, to the bit. Memory for keys and values is taken for the time of the call.
 *
 * @param ctx       the ctx. Its steps and those of its sessions take turns.
 * @param tokens    the text, at least one token; mixtral_tokenize() with MIXTRAL_TOKENIZE_BOS gives them.
 * @param n_tokens  how many.
 * @param layer     MIXTRAL_HIDDEN_FINAL; 0: the embeddings; l: the residual stream behind l layers.
 * @param pooling   MIXTRAL_POOL_*.
 * @param rows      receives mixtral_info::dim floats for each token, or for the text if they are pooled.
 * @param capacity  its floats.
 * @param n_floats  receives how many they are.
 * @return MIXTRAL_OK; BUFFER_TOO_SMALL, before anything is computed; INVALID_ARGUMENT, also for no tokens, an id outside
 *   the vocabulary and a layer that is not there; CONTEXT_FULL; BUSY, from inside a step of this ctx, and in the child of
 *   a fork() that happened inside one; what the host's threads fail with; OUT_OF_MEMORY.
 *
 * Threads: any. Since 1.1. */
MIXTRAL_API mixtral_status mixtral_hidden(const mixtral_ctx* ctx, const int32_t* tokens, size_t n_tokens, int32_t layer,
                                          int32_t pooling, float* rows, size_t capacity, size_t* n_floats);

/** What a session keeps keys and values in. */
enum {
  MIXTRAL_KV_BF16 = 0,
  MIXTRAL_KV_F32 = 1, /**< twice the memory */
  MIXTRAL_KV_I8 = 2   /**< half the memory: bytes, with a scale for each position and head */
};

/** Options of a session. */
typedef struct mixtral_session_params {
  uint32_t struct_size;  /**< sizeof(mixtral_session_params) */
  uint32_t flags;        /**< default 0 */
  int64_t max_positions; /**< room for this many tokens; default 0: mixtral_info::max_positions. Memory is taken when it
                              is needed, mixtral_info::kv_bytes_per_page at a time. */
  int64_t chunk;         /**< tokens per pass of a long prompt: bounds working memory, changes no result; default 512.
                              A cancel is seen within a layer of one pass. */
  int32_t kv_type;       /**< MIXTRAL_KV_*, default MIXTRAL_KV_BF16. Since 1.1. */
  int32_t reserved;      /**< 0. Since 1.1. */
} mixtral_session_params;

/**
 * Fills in the defaults.
 *
 * @param params       what to fill.
 * @param struct_size  sizeof(mixtral_session_params), as the caller's header has it.
 * @return MIXTRAL_OK; INVALID_ARGUMENT.
 *
 * Threads: any. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_params_init(mixtral_session_params* params, size_t struct_size);

/**
 * Makes an empty session.
 *
 * @param ctx      its model.
 * @param params   NULL: the defaults.
 * @param session  receives the handle; free it with mixtral_session_destroy().
 * @return MIXTRAL_OK; INVALID_ARGUMENT; OUT_OF_MEMORY.
 *
 * Threads: any. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_create(mixtral_ctx* ctx, const mixtral_session_params* params,
                                                  mixtral_session** session);

/**
 * Frees a session. If a call is running on it (this is called from one of its callbacks, or from another thread), that
 * call is cancelled and frees the session when it ends. A call that another thread has not begun yet is too late: the
 * handle is gone.
 *
 * @param session  may be NULL.
 *
 * Errors: none. Threads: any. Since 1.0. */
MIXTRAL_API void mixtral_session_destroy(mixtral_session* session);

/** How far a session is. */
typedef struct mixtral_session_state {
  uint32_t struct_size;  /**< sizeof(mixtral_session_state) */
  uint32_t flags;        /**< as in mixtral_session_params */
  int64_t n_tokens;      /**< computed and queued */
  int64_t n_computed;    /**< computed */
  int64_t max_positions; /**< room for this many */
  int64_t kv_bytes;      /**< memory of keys and values that is held now */
  int64_t kv_shared_bytes; /**< of these, what forks (or the original) hold, too: counted for each. Since 1.1. */
  int64_t n_messages;      /**< of its conversation, -1 if it has none. Since 1.1. */
} mixtral_session_state;

/**
 * Says how far a session is.
 *
 * @param session  the session.
 * @param state    struct_size set by the caller; receives the rest.
 * @return MIXTRAL_OK; INVALID_ARGUMENT; BUSY.
 *
 * Threads: one call at a time per session. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_info(mixtral_session* session, mixtral_session_state* state);

/** Flags of mixtral_session_feed(). */
enum { MIXTRAL_FEED_LOGITS = 1 /**< the logits of each of these tokens are wanted, not only of the last one */ };

/**
 * Queues tokens behind those that are there. Nothing is computed yet.
 *
 * @param session   the session.
 * @param tokens    the ids.
 * @param n_tokens  how many; 0 is allowed.
 * @param flags     0 or MIXTRAL_FEED_LOGITS. Logits take 4 * vocab_size bytes a token.
 * @return MIXTRAL_OK; INVALID_ARGUMENT, also for an id outside the vocabulary; CONTEXT_FULL; OUT_OF_MEMORY; BUSY. After
 *   an error none of the tokens is queued.
 *
 * Threads: one call at a time per session. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_feed(mixtral_session* session, const int32_t* tokens, size_t n_tokens,
                                                uint32_t flags);

/**
 * Makes the session's tokens exactly these: what is computed already and the same from the start is kept, the rest is
 * forgotten or queued. The way to continue an edited text or a conversation at the price of what is new. If nothing
 * is new and the last token's logits are gone, that token is computed again.
 *
 * @param session   the session.
 * @param tokens    all ids.
 * @param n_tokens  how many; 0 empties the session.
 * @param n_kept    receives how many computed tokens were kept; may be NULL.
 * @return as mixtral_session_feed(). After an error nothing has changed.
 *
 * Threads: one call at a time per session. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_set_tokens(mixtral_session* session, const int32_t* tokens, size_t n_tokens,
                                                      size_t* n_kept);

/**
 * All tokens of the session, computed and queued.
 *
 * @param session   the session.
 * @param tokens    receives the ids.
 * @param capacity  its elements.
 * @param n_tokens  receives how many ids there are.
 * @return MIXTRAL_OK; BUFFER_TOO_SMALL; INVALID_ARGUMENT; BUSY.
 *
 * Threads: one call at a time per session. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_tokens(mixtral_session* session, int32_t* tokens, size_t capacity,
                                                  size_t* n_tokens);

/**
 * Computes all queued tokens.
 *
 * @param session  the session.
 * @return MIXTRAL_OK, also if nothing is queued; INVALID_ARGUMENT if the model gives numbers that are none; NOT_FOUND if
 *   the ctx was opened with MIXTRAL_HEAD_NONE (since 1.2); CANCELLED; OUT_OF_MEMORY; BUSY. After an error the tokens are
 *   still queued and everything is as before: the call may be repeated.
 *
 * Threads: one call at a time per session; steps of other sessions wait. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_eval(mixtral_session* session);

/**
 * The logits of a computed token: of the last one always, of others if they were fed with MIXTRAL_FEED_LOGITS and
 * computed by the last mixtral_session_eval() or step that computed anything.
 *
 * @param session   the session.
 * @param position  of the token in the session, from 0.
 * @param logits    receives vocab_size numbers.
 * @param capacity  its elements.
 * @param n_logits  receives vocab_size.
 * @return MIXTRAL_OK; BUFFER_TOO_SMALL; INVALID_ARGUMENT if that token has no logits; BUSY.
 *
 * Threads: one call at a time per session. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_logits(mixtral_session* session, size_t position, float* logits,
                                                  size_t capacity, size_t* n_logits);

/** How the next token is drawn: repetition penalty, temperature, top_k, top_p, min_p, in this order. */
typedef struct mixtral_sampler_params {
  uint32_t struct_size;     /**< sizeof(mixtral_sampler_params) */
  int32_t top_k;            /**< keep the k likeliest; default 0: all */
  float temperature;        /**< 0: always the likeliest (greedy); default 1 */
  float top_p;              /**< keep the fewest likeliest that add up to this; default 1: all */
  float min_p;              /**< drop what is less likely than this share of the likeliest; default 0: nothing */
  float repetition_penalty; /**< above 1: tokens of the session become rarer; default 1 */
  uint64_t seed;            /**< the same seed draws the same tokens; default 0 */
} mixtral_sampler_params;

/**
 * Fills in the defaults.
 *
 * @param params       what to fill.
 * @param struct_size  sizeof(mixtral_sampler_params), as the caller's header has it.
 * @return MIXTRAL_OK; INVALID_ARGUMENT.
 *
 * Threads: any. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_sampler_params_init(mixtral_sampler_params* params, size_t struct_size);

/**
 * Changes how tokens are drawn from now on, and starts the random numbers anew from the seed.
 *
 * @param session  the session.
 * @param params   NULL: the defaults.
 * @return MIXTRAL_OK; INVALID_ARGUMENT, with the option and its value; BUSY.
 *
 * Threads: one call at a time per session. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_set_sampler(mixtral_session* session, const mixtral_sampler_params* params);

/**
 * May change the logits before each token is drawn: -INFINITY forbids a token.
 *
 * @param user      as given with the callback.
 * @param logits    a copy, to be changed in place.
 * @param n_logits  vocab_size.
 * @return 0; anything else ends the call with MIXTRAL_CANCELLED, and no token is drawn.
 *
 * Threads: the thread that samples. Since 1.0. */
typedef int32_t (*mixtral_logits_fn)(void* user, float* logits, size_t n_logits);

/**
 * Sets the logits callback of a session.
 *
 * @param session   the session.
 * @param callback  NULL: none.
 * @param user      its argument.
 * @return MIXTRAL_OK; INVALID_ARGUMENT; BUSY.
 *
 * Threads: one call at a time per session. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_set_logits_callback(mixtral_session* session, mixtral_logits_fn callback,
                                                               void* user);

/**
 * Draws a token from the logits of the last token. It is not queued: feed it, or another one.
 *
 * @param session  the session; nothing is queued, at least one token is computed.
 * @param token    receives the id.
 * @return MIXTRAL_OK; INVALID_ARGUMENT if tokens are queued, if there are no logits, or if none is above -INFINITY;
 *   CANCELLED by the logits callback; OUT_OF_MEMORY; BUSY.
 *
 * Threads: one call at a time per session. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_sample(mixtral_session* session, int32_t* token);

/**
 * mixtral_session_eval(), mixtral_session_sample(), and the token is queued: one step of generation.
 *
 * @param session  the session, with at least one token.
 * @param token    receives the id that was drawn.
 * @return MIXTRAL_OK; CONTEXT_FULL if there is no room for the new token: nothing has changed; otherwise as eval and
 *   sample: after an error of the first nothing has changed, after one of the second the queued tokens are computed and
 *   no token is queued. The call may be repeated, and then draws what it would have drawn.
 *
 * Threads: one call at a time per session; steps of other sessions wait. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_step(mixtral_session* session, int32_t* token);

/**
 * Ends the eval, step, generate, say or answer that is running on the session, or else the next one: it returns
 * MIXTRAL_CANCELLED within about one layer's time.
 *
 * @param session  may be NULL: then nothing happens.
 * @return MIXTRAL_OK; INVALID_ARGUMENT if it is not a session.
 *
 * Threads: any, at any time before the session is destroyed; it may also be called from a signal handler. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_cancel(mixtral_session* session);

/**
 * Forgets a cancel that no call has seen yet: one that came after the call it was meant for.
 *
 * @param session  the session.
 * @return MIXTRAL_OK; INVALID_ARGUMENT; BUSY.
 *
 * Threads: one call at a time per session. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_clear_cancel(mixtral_session* session);

/**
 * What went wrong in the last call on this session that failed (other than with BUSY or BUFFER_TOO_SMALL), whichever
 * thread made it: for languages that move a call to another thread than the one that asks. At most 1023 bytes.
 *
 * @param session    the session.
 * @param text       receives the text; empty if no call has failed.
 * @param capacity   its bytes.
 * @param text_size  receives the text's bytes.
 * @return MIXTRAL_OK; BUFFER_TOO_SMALL; INVALID_ARGUMENT; BUSY.
 *
 * Threads: one call at a time per session. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_error(mixtral_session* session, char* text, size_t capacity,
                                                 size_t* text_size);

/**
 * Forgets all tokens, logits, recorded routes, the conversation and a pending cancel, and starts the random numbers anew.
 * Options and callback stay; memory is kept for reuse.
 *
 * @param session  the session.
 * @return MIXTRAL_OK; INVALID_ARGUMENT; BUSY.
 *
 * Threads: one call at a time per session. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_reset(mixtral_session* session);

/**
 * Makes a session with the same tokens, keys and values, logits, recorded routes, conversation, options and random
 * numbers: both go on independently, on any threads. The logits callback is not copied. Pages of keys and values (32 positions each) are
 * shared as long as neither forgets them: a fork costs little memory of its own.
 *
 * @param session  the original; it does not change.
 * @param fork     receives the handle; free it with mixtral_session_destroy().
 * @return MIXTRAL_OK; INVALID_ARGUMENT; OUT_OF_MEMORY; BUSY.
 *
 * Threads: one call at a time per session. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_fork(mixtral_session* session, mixtral_session** fork);

/**
 * Forgets all tokens from a position on, queued ones too, and their logits.
 *
 * @param session   the session.
 * @param n_tokens  how many tokens stay; at most those that are computed.
 * @return MIXTRAL_OK; INVALID_ARGUMENT; BUSY.
 *
 * Threads: one call at a time per session. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_truncate(mixtral_session* session, size_t n_tokens);

/* ---- generation ----------------------------------------------------------------------------------------- */

/** A text: pointer and length. */
typedef struct mixtral_string {
  const char* data;
  size_t size;
} mixtral_string;

/** Flags of mixtral_generate_params. */
enum { MIXTRAL_GENERATE_IGNORE_EOS = 1 /**< go on after the model's own end tokens */ };

/**
 * Receives each token as it is drawn, and the text that became certain with it.
 *
 * @param user       mixtral_generate_params::user.
 * @param token      the id; -1 at the end, if text is left that belongs to no new token.
 * @param text       whole UTF-8 characters, valid during the call; empty if the token completes none, if the text
 *   might be the beginning of a stop string, or if the model has no tokenizer.
 * @param text_size  its bytes.
 * @return 0 to go on; anything else ends the generation after this token.
 *
 * Threads: the thread that generates. Since 1.0. */
typedef int32_t (*mixtral_token_fn)(void* user, int32_t token, const char* text, size_t text_size);

/** Options of mixtral_session_generate(), mixtral_chat_say() and mixtral_chat_answer(). */
typedef struct mixtral_generate_params {
  uint32_t struct_size;               /**< sizeof(mixtral_generate_params) */
  uint32_t flags;                     /**< default 0 */
  int64_t max_tokens;                 /**< most tokens to draw; default 128 */
  const mixtral_string* stop_strings; /**< the text ends before one of these; needs a tokenizer */
  size_t n_stop_strings;
  const int32_t* stop_tokens; /**< end the text when drawn, beside the model's own end tokens */
  size_t n_stop_tokens;
  mixtral_token_fn on_token; /**< default NULL */
  void* user;
} mixtral_generate_params;

/** Values of mixtral_generate_result::stop_reason. */
enum {
  MIXTRAL_STOP_MAX_TOKENS = 0,
  MIXTRAL_STOP_TOKEN = 1,
  MIXTRAL_STOP_STRING = 2,
  MIXTRAL_STOP_CONTEXT_FULL = 3,
  MIXTRAL_STOP_CALLBACK = 4
};

/** What a generation came to. */
typedef struct mixtral_generate_result {
  uint32_t struct_size; /**< sizeof(mixtral_generate_result) */
  int32_t stop_reason;  /**< MIXTRAL_STOP_* */
  int64_t n_tokens;     /**< that were drawn, an end token included */
  int64_t n_prompt;     /**< tokens before these. Since 1.1. */
  int64_t n_kept;       /**< of these, not computed again. Since 1.1. */
} mixtral_generate_result;

/**
 * Fills in the defaults.
 *
 * @param params       what to fill.
 * @param struct_size  sizeof(mixtral_generate_params), as the caller's header has it.
 * @return MIXTRAL_OK; INVALID_ARGUMENT.
 *
 * Threads: any. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_generate_params_init(mixtral_generate_params* params, size_t struct_size);

/**
 * Continues the session's tokens until something ends it: max_tokens, an end token, a stop string, a full context, the
 * callback. Afterwards the session holds all drawn tokens; the last of them is queued (not in a full context).
 *
 * @param session  the session, with at least one token.
 * @param params   NULL: the defaults.
 * @param result   struct_size set by the caller; receives the rest. May be NULL.
 * @return MIXTRAL_OK; otherwise as mixtral_session_step(): the session then holds the tokens that the callback has
 * seen, and may go on from there. (After OUT_OF_MEMORY the random numbers may be one further.)
 *
 * Threads: one call at a time per session; steps of other sessions come between those of this one. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_generate(mixtral_session* session, const mixtral_generate_params* params,
                                                    mixtral_generate_result* result);

/* ---- a conversation ------------------------------------------------------------------------------------- */

/**
 * Begins a conversation on a session; one that was there is forgotten, the session's tokens are not: what the first
 * answer can use of them it does. Other calls may use the session between two answers.
 *
 * @param session  the session.
 * @param style    MIXTRAL_CHAT_*.
 * @param flags    0 or MIXTRAL_CHAT_ESCAPE.
 * @return MIXTRAL_OK; INVALID_ARGUMENT, also if the vocabulary lacks what the style needs; UNSUPPORTED if AUTO meets a
 *   template of no known style; NOT_FOUND if the model has no tokenizer; OUT_OF_MEMORY; BUSY. After an error the
 *   conversation is as before.
 *
 * Threads: one call at a time per session. Since 1.1. */
MIXTRAL_API mixtral_status mixtral_chat_begin(mixtral_session* session, int32_t style, uint32_t flags);

/**
 * Adds messages that are known: the system's text, turns from earlier, a question for mixtral_chat_answer(). Nothing is
 * computed yet.
 *
 * @param session     the session, with a conversation.
 * @param messages    an optional system message as the conversation's first, then user and assistant in turns.
 * @param n_messages  how many.
 * @return MIXTRAL_OK; INVALID_ARGUMENT, with the index of the message in the conversation: roles out of order (a
 *   question that waits for its answer needs mixtral_chat_answer(), or mixtral_chat_keep() without it), a forged marker,
 *   ids outside the vocabulary, ids of a message that is no answer; OUT_OF_MEMORY; BUSY. After an error none of the
 *   messages is added.
 *
 * Threads: one call at a time per session. Since 1.1. */
MIXTRAL_API mixtral_status mixtral_chat_add(mixtral_session* session, const mixtral_chat_message* messages,
                                            size_t n_messages);

/**
 * Draws the answer to the user's message at the end of the conversation, and adds it. The session's tokens become those
 * of the conversation: what is computed of them is kept, so that a conversation costs what is new in it. (In V3 a system
 * text stands before the last of the user's: what follows its old place is computed again.) The answer ends with the
 * style's own end token, and with what params add.
 *
 * @param session  the session, with a conversation.
 * @param params   NULL: the defaults. MIXTRAL_GENERATE_IGNORE_EOS is refused. The callback gets the answer's text
 *   without the space that tokenizing puts in front.
 * @param result   struct_size set by the caller; receives the rest. May be NULL.
 * @return MIXTRAL_OK; otherwise as mixtral_session_generate(), and INVALID_ARGUMENT if the last message is not the
 *   user's, CONTEXT_FULL if the conversation does not fit; then nothing has changed. Whatever the status is, earlier
 *   messages stay, and of the answer what was drawn: n_messages tells whether it is one. It is none if nothing was drawn;
 *   one that is nothing but the end token is an empty message.
 *
 * Threads: one call at a time per session; steps of other sessions come between those of this one. Since 1.1. */
MIXTRAL_API mixtral_status mixtral_chat_answer(mixtral_session* session, const mixtral_generate_params* params,
                                               mixtral_generate_result* result);

/**
 * Adds a message of the user's and draws the answer: mixtral_chat_add() and mixtral_chat_answer() in one. If nothing of
 * the answer was drawn the user's message is forgotten, too, so that the conversation can go on.
 *
 * @param session    the session, with a conversation.
 * @param text       what the user says.
 * @param text_size  its bytes.
 * @param params     as mixtral_chat_answer().
 * @param result     as mixtral_chat_answer().
 * @return as mixtral_chat_add() and mixtral_chat_answer().
 *
 * Threads: one call at a time per session; steps of other sessions come between those of this one. Since 1.1. */
MIXTRAL_API mixtral_status mixtral_chat_say(mixtral_session* session, const char* text, size_t text_size,
                                            const mixtral_generate_params* params, mixtral_generate_result* result);

/**
 * A message of the conversation; mixtral_session_state::n_messages says how many there are.
 *
 * @param session    the session, with a conversation.
 * @param index      of the message, from 0.
 * @param role       receives MIXTRAL_ROLE_*. May be NULL.
 * @param text       receives the text, without a terminating 0.
 * @param capacity   its bytes.
 * @param text_size  receives the text's bytes.
 * @return MIXTRAL_OK; BUFFER_TOO_SMALL; INVALID_ARGUMENT, also if there is no such message; BUSY.
 *
 * Threads: one call at a time per session. Since 1.1. */
MIXTRAL_API mixtral_status mixtral_chat_message_text(mixtral_session* session, size_t index, int32_t* role, char* text,
                                                     size_t capacity, size_t* text_size);

/**
 * The ids of an answer as it was drawn, without what ended it (of a stop string that begins within a token, that part
 * stays): whoever saves a conversation can bring them back with mixtral_chat_add().
 *
 * @param session   the session, with a conversation.
 * @param index     of the message, from 0.
 * @param tokens    receives the ids; none for a message that was given as text.
 * @param capacity  its elements.
 * @param n_tokens  receives how many ids there are.
 * @return as mixtral_chat_message_text().
 *
 * Threads: one call at a time per session. Since 1.1. */
MIXTRAL_API mixtral_status mixtral_chat_message_tokens(mixtral_session* session, size_t index, int32_t* tokens,
                                                       size_t capacity, size_t* n_tokens);

/**
 * Forgets all messages but the first ones: to begin anew, or to ask again.
 *
 * @param session     the session, with a conversation.
 * @param n_messages  how many stay.
 * @return MIXTRAL_OK; INVALID_ARGUMENT, also if there are fewer; BUSY.
 *
 * Threads: one call at a time per session. Since 1.1. */
MIXTRAL_API mixtral_status mixtral_chat_keep(mixtral_session* session, size_t n_messages);

/* ---- which experts worked ------------------------------------------------------------------------------- */

/**
 * How often each expert was chosen by the computed tokens of all sessions, since the ctx was made or the last reset.
 *
 * @param ctx       the ctx.
 * @param counts    receives [n_layers, n_experts], row-major.
 * @param capacity  its elements.
 * @param n_counts  receives n_layers * n_experts.
 * @return MIXTRAL_OK; BUFFER_TOO_SMALL; INVALID_ARGUMENT.
 *
 * Threads: any. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_ctx_routing_counts(mixtral_ctx* ctx, uint64_t* counts, size_t capacity,
                                                      size_t* n_counts);

/**
 * Sets all counts to 0.
 *
 * @param ctx  the ctx.
 * @return MIXTRAL_OK; INVALID_ARGUMENT.
 *
 * Threads: any. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_ctx_reset_routing_counts(mixtral_ctx* ctx);

/**
 * The experts that worked on one computed token, and their weights. Needs MIXTRAL_SESSION_RECORD_ROUTES.
 *
 * @param session   the session.
 * @param position  of the token in the session, from 0.
 * @param experts   receives [n_layers, n_experts_per_tok], in each layer the heaviest first.
 * @param weights   receives the same shape; each layer's add up to 1. May be NULL.
 * @param capacity  elements of `experts`, and of `weights` if given.
 * @param n_routes  receives n_layers * n_experts_per_tok.
 * @return MIXTRAL_OK; BUFFER_TOO_SMALL; INVALID_ARGUMENT if that token has no recorded route; BUSY.
 *
 * Threads: one call at a time per session. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_routes(mixtral_session* session, size_t position, int32_t* experts,
                                                  float* weights, size_t capacity, size_t* n_routes);

/**
 * Forgets the recorded routes of all tokens that are computed so far, and frees their memory (8 bytes for each
 * token, layer and expert); those of later tokens are recorded.
 *
 * @param session  the session.
 * @return MIXTRAL_OK; INVALID_ARGUMENT; BUSY.
 *
 * Threads: one call at a time per session. Since 1.0. */
MIXTRAL_API mixtral_status mixtral_session_reset_routes(mixtral_session* session);

#ifdef __cplusplus
}
#endif

#endif /* MIXTRAL_H */
