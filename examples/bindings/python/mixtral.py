"""A binding of libmixtral's C ABI with ctypes and nothing else: copy it, and add what you need of mixtral.h."""

import ctypes
import os
from ctypes import POINTER, byref, c_char_p, c_float, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

INVALID_ARGUMENT, CONTEXT_FULL, BUFFER_TOO_SMALL = 1, 7, 11
ROLE_SYSTEM = 0
TOKENIZE_BOS = 1

# int32_t (*)(void* user, int32_t token, const char* text, size_t text_size). The text is a void pointer here, because
# ctypes turns a c_char_p into bytes that end at the first 0.
TOKEN_FN = ctypes.CFUNCTYPE(c_int32, c_void_p, c_int32, c_void_p, c_size_t)


class Info(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("isa", c_int32), ("executor", c_int32), ("n_threads", c_int32),
        *[(name, c_int64) for name in (
            "dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "n_experts", "n_experts_per_tok",
            "vocab_size", "max_positions", "sliding_window", "n_parameters", "n_active", "weight_bytes",
            "kv_bytes_per_page", "n_pieces")],
        ("bos_id", c_int32), ("eos_id", c_int32), ("add_bos", c_int32), ("chat_style", c_int32),
    ]  # fmt: skip


class SamplerParams(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("top_k", c_int32), ("temperature", c_float), ("top_p", c_float),
        ("min_p", c_float), ("repetition_penalty", c_float), ("seed", c_uint64),
    ]  # fmt: skip


class GenerateParams(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("flags", c_uint32), ("max_tokens", c_int64), ("stop_strings", c_void_p),
        ("n_stop_strings", c_size_t), ("stop_tokens", POINTER(c_int32)), ("n_stop_tokens", c_size_t),
        ("on_token", TOKEN_FN), ("user", c_void_p),
    ]  # fmt: skip


class GenerateResult(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("stop_reason", c_int32), ("n_tokens", c_int64), ("n_prompt", c_int64),
        ("n_kept", c_int64),
    ]  # fmt: skip


class ChatMessage(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32), ("role", c_int32), ("text", c_char_p), ("text_size", c_size_t),
        ("tokens", POINTER(c_int32)), ("n_tokens", c_size_t),
    ]  # fmt: skip


class MixtralError(Exception):
    """`status` is one of MIXTRAL_*; the text is the library's, with names and numbers."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def _check(status, _function=None, _arguments=None):
    if status != 0:  # ctypes runs this on the thread of the call, whose text it is
        raise MixtralError(status, _lib.mixtral_last_error().decode("utf-8", "replace"))
    return status


def _declare(name, *argtypes, check=True):
    function = getattr(_lib, "mixtral_" + name)
    function.argtypes = argtypes  # without these, ctypes would pass every number as a 32-bit int
    if check:
        function.restype, function.errcheck = c_int32, _check
    return function


# CDLL releases the interpreter lock during a call, and takes it again for a callback. (PyDLL would not.)
_lib = ctypes.CDLL(os.environ.get("MIXTRAL_LIBRARY", "libmixtral.so.1"))
_lib.mixtral_last_error.restype = c_char_p
_ctx_create = _declare("ctx_create", c_char_p, c_size_t, c_void_p, POINTER(c_void_p))
_ctx_info = _declare("ctx_info", c_void_p, POINTER(Info))
_ctx_destroy = _declare("ctx_destroy", c_void_p, check=False)
_tokenize = _declare("tokenize", c_void_p, c_char_p, c_size_t, c_uint32, POINTER(c_int32), c_size_t, POINTER(c_size_t))
_tokenize.errcheck = lambda status, *_: status if status == BUFFER_TOO_SMALL else _check(status)
_routing_counts = _declare("ctx_routing_counts", c_void_p, POINTER(c_uint64), c_size_t, POINTER(c_size_t))
_session_create = _declare("session_create", c_void_p, c_void_p, POINTER(c_void_p))
_session_destroy = _declare("session_destroy", c_void_p, check=False)
_feed = _declare("session_feed", c_void_p, POINTER(c_int32), c_size_t, c_uint32)
_sampler_init = _declare("sampler_params_init", POINTER(SamplerParams), c_size_t)
_set_sampler = _declare("session_set_sampler", c_void_p, POINTER(SamplerParams))
_generate_init = _declare("generate_params_init", POINTER(GenerateParams), c_size_t)
_generate = _declare("session_generate", c_void_p, POINTER(GenerateParams), POINTER(GenerateResult))
_chat_begin = _declare("chat_begin", c_void_p, c_int32, c_uint32)
_chat_add = _declare("chat_add", c_void_p, POINTER(ChatMessage), c_size_t)
_chat_keep = _declare("chat_keep", c_void_p, c_size_t)
_chat_say = _declare("chat_say", c_void_p, c_char_p, c_size_t, POINTER(GenerateParams), POINTER(GenerateResult))


class _Handle:
    """Frees itself at the end of a `with`, or with the last reference; afterwards it is NULL, an error and no crash."""

    _destroy = None

    def __init__(self):
        self._handle = c_void_p()

    def close(self):
        handle, self._handle = self._handle, c_void_p()
        self._destroy(handle)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()


class Context(_Handle):
    """A model, its tokenizer and its threads. May be used from several threads."""

    _destroy = staticmethod(_ctx_destroy)

    def __init__(self, path):
        super().__init__()
        path = os.fsencode(path)
        _ctx_create(path, len(path), None, byref(self._handle))

    def info(self):
        info = Info(struct_size=ctypes.sizeof(Info))
        _ctx_info(self._handle, byref(info))
        return info

    def tokenize(self, text):
        text, n = text.encode(), c_size_t()
        tokens = (c_int32 * (len(text) // 2 + 8))()
        while _tokenize(self._handle, text, len(text), TOKENIZE_BOS, tokens, len(tokens), byref(n)) != 0:
            tokens = (c_int32 * n.value)()  # it was too small
        return tokens[: n.value]

    def routing_counts(self):
        """A list of n_experts numbers for each layer."""
        info, n = self.info(), c_size_t()
        counts = (c_uint64 * (info.n_layers * info.n_experts))()
        _routing_counts(self._handle, counts, len(counts), byref(n))
        return [counts[at : at + info.n_experts] for at in range(0, len(counts), info.n_experts)]


class Session(_Handle):
    """One sequence of tokens, for one thread at a time. It keeps the model alive by itself: close in any order."""

    _destroy = staticmethod(_session_destroy)

    def __init__(self, context, temperature=1.0):
        super().__init__()
        _session_create(context._handle, None, byref(self._handle))
        params = SamplerParams()
        _sampler_init(byref(params), ctypes.sizeof(params))
        params.temperature = temperature
        _set_sampler(self._handle, byref(params))

    def feed(self, tokens):
        _feed(self._handle, (c_int32 * len(tokens))(*tokens), len(tokens), 0)

    def generate(self, max_tokens, on_token):
        """Calls on_token(token, text) for each token; True ends the text. What it raises comes out of here."""
        return self._drawing(lambda *places: _generate(self._handle, *places), max_tokens, on_token)

    def begin_chat(self, system=""):
        """A conversation, in the style of the model's own template."""
        _chat_begin(self._handle, 0, 0)
        text = system.encode()
        message = ChatMessage(ctypes.sizeof(ChatMessage), ROLE_SYSTEM, text, len(text), None, 0)
        _chat_add(self._handle, byref(message), 1)

    def say(self, text, max_tokens, on_token):
        """A message of the user's: the answer goes to on_token as in generate(), and is kept for the next one."""
        text = text.encode()
        return self._drawing(lambda *places: _chat_say(self._handle, text, len(text), *places), max_tokens, on_token)

    def keep_messages(self, n):
        """Forgets all messages but the first n."""
        _chat_keep(self._handle, n)

    @staticmethod
    def _drawing(draw, max_tokens, on_token):
        raised = []

        @TOKEN_FN
        def callback(_user, token, text, size):
            try:  # ctypes would print an exception and go on
                return 1 if on_token(token, ctypes.string_at(text, size).decode() if size else "") else 0
            except BaseException as error:  # KeyboardInterrupt too: Ctrl-C arrives here, between two tokens
                raised.append(error)
                return 1

        params, result = GenerateParams(), GenerateResult(ctypes.sizeof(GenerateResult))
        _generate_init(byref(params), ctypes.sizeof(params))
        params.max_tokens, params.on_token = max_tokens, callback  # `callback` must live until the call returns
        draw(byref(params), byref(result))
        if raised:
            raise raised[0]
        return result
