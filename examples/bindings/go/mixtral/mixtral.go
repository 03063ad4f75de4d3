// Package mixtral binds libmixtral's C ABI with cgo: copy it, and add what you need of mixtral.h.
package mixtral

/*
#cgo LDFLAGS: -lmixtral
#include <mixtral.h>

extern int32_t mixtralGoToken(uintptr_t call, int32_t token, char* text, size_t size); // below, in Go

static int32_t on_token(void* user, int32_t token, const char* text, size_t size) {
  return mixtralGoToken((uintptr_t)user, token, (char*)text, size);
}

// A cgo.Handle is a number. It becomes a pointer here, because Go may not hold a pointer that is none.
static mixtral_status generate(mixtral_session* session, mixtral_generate_params* params, uintptr_t call) {
  params->on_token = on_token;
  params->user = (void*)call;
  return mixtral_session_generate(session, params, NULL);
}
*/
import "C"

import (
	"context"
	"runtime"
	"runtime/cgo"
	"unsafe"
)

// Error has one of MIXTRAL_* and the library's text, with names and numbers.
type Error struct {
	Status int
	Text   string
}

func (e *Error) Error() string { return e.Text }

// check turns what f returns into an error. The text belongs to the OS thread of the failed call, and a goroutine may
// change its thread between two calls into C: so it stays on one until the text is read.
func check(f func() C.mixtral_status) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if status := f(); status != C.MIXTRAL_OK {
		return &Error{int(status), C.GoString(C.mixtral_last_error())}
	}
	return nil
}

// bytesOf gives C the bytes of a string for the length of one call: cgo pins what is passed to a call, and the library
// keeps no pointer to texts and arrays.
func bytesOf(s string) (*C.char, C.size_t) {
	if s == "" {
		return nil, 0
	}
	return (*C.char)(unsafe.Pointer(&[]byte(s)[0])), C.size_t(len(s))
}

// Context is a model, its tokenizer and its threads. Several goroutines may use it.
type Context struct{ raw *C.mixtral_ctx }

func Open(path string) (*Context, error) {
	c := &Context{}
	text, size := bytesOf(path)
	if err := check(func() C.mixtral_status { return C.mixtral_ctx_create(text, size, nil, &c.raw) }); err != nil {
		return nil, err
	}
	runtime.SetFinalizer(c, (*Context).Close) // for those who forget; it may run long after, or never
	return c, nil
}

// Close frees the model as soon as its sessions are closed too. Any use afterwards is an error.
func (c *Context) Close() {
	C.mixtral_ctx_destroy(c.raw)
	c.raw = nil
	runtime.SetFinalizer(c, nil)
}

// Tokenize turns text to ids, with BOS in front if the model wants it.
func (c *Context) Tokenize(text string) ([]int32, error) {
	defer runtime.KeepAlive(c) // or the finalizer may run during the call
	bytes, size := bytesOf(text)
	tokens := make([]int32, len(text)/2+8)
	for {
		var n C.size_t
		tooSmall := false
		err := check(func() C.mixtral_status {
			status := C.mixtral_tokenize(c.raw, bytes, size, C.MIXTRAL_TOKENIZE_BOS, (*C.int32_t)(&tokens[0]),
				C.size_t(len(tokens)), &n)
			tooSmall = status == C.MIXTRAL_BUFFER_TOO_SMALL
			return status
		})
		if !tooSmall {
			return tokens[:n], err
		}
		tokens = make([]int32, n)
	}
}

// RoutingCounts says for each layer how often each expert was chosen.
func (c *Context) RoutingCounts() ([][]uint64, error) {
	defer runtime.KeepAlive(c)
	var info C.mixtral_info
	info.struct_size = C.sizeof_mixtral_info
	if err := check(func() C.mixtral_status { return C.mixtral_ctx_info(c.raw, &info) }); err != nil {
		return nil, err
	}
	counts := make([]uint64, info.n_layers*info.n_experts)
	err := check(func() C.mixtral_status {
		var n C.size_t
		return C.mixtral_ctx_routing_counts(c.raw, (*C.uint64_t)(&counts[0]), C.size_t(len(counts)), &n)
	})
	rows := make([][]uint64, info.n_layers)
	for layer := range rows {
		rows[layer] = counts[layer*int(info.n_experts):][:info.n_experts]
	}
	return rows, err
}

// Session is one sequence of tokens, for one goroutine at a time. It keeps the model alive by itself, so sessions and
// context may be closed, or finalized, in any order.
type Session struct{ raw *C.mixtral_session }

func (c *Context) NewSession(temperature float32) (*Session, error) {
	defer runtime.KeepAlive(c)
	s := &Session{}
	if err := check(func() C.mixtral_status { return C.mixtral_session_create(c.raw, nil, &s.raw) }); err != nil {
		return nil, err
	}
	runtime.SetFinalizer(s, (*Session).Close)
	return s, check(func() C.mixtral_status {
		var params C.mixtral_sampler_params
		C.mixtral_sampler_params_init(&params, C.sizeof_mixtral_sampler_params)
		params.temperature = C.float(temperature)
		return C.mixtral_session_set_sampler(s.raw, &params)
	})
}

func (s *Session) Close() {
	C.mixtral_session_destroy(s.raw)
	s.raw = nil
	runtime.SetFinalizer(s, nil)
}

func (s *Session) Feed(tokens []int32) error {
	defer runtime.KeepAlive(s)
	return check(func() C.mixtral_status {
		if len(tokens) == 0 {
			return C.MIXTRAL_OK
		}
		return C.mixtral_session_feed(s.raw, (*C.int32_t)(&tokens[0]), C.size_t(len(tokens)), 0)
	})
}

type call struct {
	onToken  func(token int32, text string) bool
	panicked any
}

// Generate calls onToken for each token, on this goroutine; false ends the text, and so does the end of ctx. It blocks,
// and the goroutine keeps its OS thread meanwhile.
func (s *Session) Generate(ctx context.Context, maxTokens int, onToken func(token int32, text string) bool) error {
	defer runtime.KeepAlive(s)
	defer s.cancelAtEndOf(ctx)()
	c := &call{onToken: onToken}
	handle := cgo.NewHandle(c) // C may keep a number, but no Go pointer
	defer handle.Delete()
	err := check(func() C.mixtral_status {
		var params C.mixtral_generate_params
		C.mixtral_generate_params_init(&params, C.sizeof_mixtral_generate_params)
		params.max_tokens = C.int64_t(maxTokens)
		return C.generate(s.raw, &params, C.uintptr_t(handle))
	})
	if c.panicked != nil {
		panic(c.panicked)
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// cancelAtEndOf cancels the session when ctx ends, until the function that it returns is called.
func (s *Session) cancelAtEndOf(ctx context.Context) (stop func()) {
	stopped, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		select {
		case <-ctx.Done():
			C.mixtral_session_cancel(s.raw)
		case <-stopped:
		}
	}()
	return func() {
		close(stopped)
		<-over
		C.mixtral_session_clear_cancel(s.raw) // it may have come after the end
	}
}

//export mixtralGoToken
func mixtralGoToken(user C.uintptr_t, token C.int32_t, text *C.char, size C.size_t) (result C.int32_t) {
	c := cgo.Handle(user).Value().(*call)
	defer func() { // a panic must not unwind the library's frames: it goes on in Generate
		if c.panicked = recover(); c.panicked != nil {
			result = 1
		}
	}()
	if !c.onToken(int32(token), C.GoStringN(text, C.int(size))) {
		result = 1
	}
	return result
}
