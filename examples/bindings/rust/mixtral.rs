//! A binding of libmixtral's C ABI with nothing but std: copy it, and add what you need of mixtral.h.

#![allow(dead_code)] // a program uses a part of it

use std::any::Any;
use std::ffi::CStr;
use std::fmt;
use std::os::raw::{c_char, c_void};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::ptr::{null, null_mut, NonNull};
use std::sync::Arc;

/// What mixtral.h declares. Fields and order are the header's.
mod ffi {
    use super::*;

    pub const BUFFER_TOO_SMALL: i32 = 11;
    pub const TOKENIZE_BOS: u32 = 1;

    #[repr(C)]
    pub struct Ctx {
        opaque: [u8; 0],
    }
    #[repr(C)]
    pub struct Session {
        opaque: [u8; 0],
    }

    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    pub struct Info {
        pub struct_size: u32,
        pub isa: i32,
        pub executor: i32,
        pub n_threads: i32,
        pub dim: i64,
        pub hidden_dim: i64,
        pub n_layers: i64,
        pub n_heads: i64,
        pub n_kv_heads: i64,
        pub head_dim: i64,
        pub n_experts: i64,
        pub n_experts_per_tok: i64,
        pub vocab_size: i64,
        pub max_positions: i64,
        pub sliding_window: i64,
        pub n_parameters: i64,
        pub n_active: i64,
        pub weight_bytes: i64,
        pub kv_bytes_per_page: i64,
        pub n_pieces: i64,
        pub bos_id: i32,
        pub eos_id: i32,
        pub add_bos: i32,
        pub chat_style: i32,
    }

    #[repr(C)]
    #[derive(Default)]
    pub struct SamplerParams {
        pub struct_size: u32,
        pub top_k: i32,
        pub temperature: f32,
        pub top_p: f32,
        pub min_p: f32,
        pub repetition_penalty: f32,
        pub seed: u64,
    }

    pub type TokenFn = unsafe extern "C" fn(*mut c_void, i32, *const c_char, usize) -> i32;

    #[repr(C)]
    pub struct GenerateParams {
        pub struct_size: u32,
        pub flags: u32,
        pub max_tokens: i64,
        pub stop_strings: *const c_void,
        pub n_stop_strings: usize,
        pub stop_tokens: *const i32,
        pub n_stop_tokens: usize,
        pub on_token: Option<TokenFn>,
        pub user: *mut c_void,
    }

    #[link(name = "mixtral")]
    extern "C" {
        pub fn mixtral_last_error() -> *const c_char;
        pub fn mixtral_ctx_create(path: *const u8, n: usize, params: *const c_void, ctx: *mut *mut Ctx) -> i32;
        pub fn mixtral_ctx_destroy(ctx: *mut Ctx);
        pub fn mixtral_ctx_info(ctx: *const Ctx, info: *mut Info) -> i32;
        pub fn mixtral_tokenize(
            ctx: *const Ctx,
            text: *const u8,
            text_size: usize,
            flags: u32,
            tokens: *mut i32,
            capacity: usize,
            n: *mut usize,
        ) -> i32;
        pub fn mixtral_ctx_routing_counts(ctx: *mut Ctx, counts: *mut u64, capacity: usize, n: *mut usize) -> i32;
        pub fn mixtral_session_create(ctx: *mut Ctx, params: *const c_void, session: *mut *mut Session) -> i32;
        pub fn mixtral_session_destroy(session: *mut Session);
        pub fn mixtral_session_cancel(session: *mut Session) -> i32;
        pub fn mixtral_session_feed(session: *mut Session, tokens: *const i32, n: usize, flags: u32) -> i32;
        pub fn mixtral_sampler_params_init(params: *mut SamplerParams, struct_size: usize) -> i32;
        pub fn mixtral_session_set_sampler(session: *mut Session, params: *const SamplerParams) -> i32;
        pub fn mixtral_generate_params_init(params: *mut GenerateParams, struct_size: usize) -> i32;
        pub fn mixtral_session_generate(
            session: *mut Session,
            params: *const GenerateParams,
            result: *mut c_void,
        ) -> i32;
    }
}

/// One of MIXTRAL_*, and the library's text, with names and numbers.
#[derive(Debug)]
pub struct Error {
    pub status: i32,
    pub text: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
impl std::error::Error for Error {}

fn check(status: i32) -> Result<(), Error> {
    if status == 0 {
        return Ok(());
    }
    let text = unsafe { CStr::from_ptr(ffi::mixtral_last_error()) }; // this thread's
    Err(Error { status, text: text.to_string_lossy().into_owned() })
}

/// A model, its tokenizer and its threads.
pub struct Context(NonNull<ffi::Ctx>);

// mixtral.h: all functions of a ctx may be called from several threads.
unsafe impl Send for Context {}
unsafe impl Sync for Context {}

impl Context {
    pub fn open(path: &str) -> Result<Context, Error> {
        let mut ctx = null_mut();
        check(unsafe { ffi::mixtral_ctx_create(path.as_ptr(), path.len(), null(), &mut ctx) })?;
        Ok(Context(NonNull::new(ctx).expect("a ctx")))
    }

    /// Text to ids, with BOS in front if the model wants it.
    pub fn tokenize(&self, text: &str) -> Result<Vec<i32>, Error> {
        let mut tokens = vec![0; text.len() / 2 + 8];
        loop {
            let mut n = 0;
            let status = unsafe {
                let (out, capacity) = (tokens.as_mut_ptr(), tokens.len());
                ffi::mixtral_tokenize(
                    self.0.as_ptr(),
                    text.as_ptr(),
                    text.len(),
                    ffi::TOKENIZE_BOS,
                    out,
                    capacity,
                    &mut n,
                )
            };
            tokens.resize(n, 0);
            if status != ffi::BUFFER_TOO_SMALL {
                return check(status).map(|_| tokens);
            }
        }
    }

    /// For each layer, how often each expert was chosen.
    pub fn routing_counts(&self) -> Result<Vec<Vec<u64>>, Error> {
        let mut info = ffi::Info { struct_size: std::mem::size_of::<ffi::Info>() as u32, ..Default::default() };
        check(unsafe { ffi::mixtral_ctx_info(self.0.as_ptr(), &mut info) })?;
        let mut counts = vec![0; (info.n_layers * info.n_experts) as usize];
        let mut n = 0;
        check(unsafe { ffi::mixtral_ctx_routing_counts(self.0.as_ptr(), counts.as_mut_ptr(), counts.len(), &mut n) })?;
        Ok(counts.chunks(info.n_experts as usize).map(<[u64]>::to_vec).collect())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        unsafe { ffi::mixtral_ctx_destroy(self.0.as_ptr()) }
    }
}

struct Handle(NonNull<ffi::Session>);

// A session may move to another thread, be freed by any, and be cancelled by any. All that needs it for itself takes
// `&mut Session`, so nobody can use it twice at a time.
unsafe impl Send for Handle {}
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        unsafe { ffi::mixtral_session_destroy(self.0.as_ptr()) }
    }
}

/// One sequence of tokens. It keeps the model alive by itself, so it borrows nothing of the Context.
pub struct Session(Arc<Handle>);

/// Ends, from any thread, what its session is doing.
#[derive(Clone)]
pub struct Canceller(Arc<Handle>);

impl Canceller {
    pub fn cancel(&self) {
        unsafe { ffi::mixtral_session_cancel(self.0 .0.as_ptr()) };
    }
}

struct Call<'a> {
    on_token: &'a mut dyn FnMut(i32, &str) -> bool,
    panic: Option<Box<dyn Any + Send>>,
}

// A panic must not unwind into C: it is caught here and goes on in generate().
unsafe extern "C" fn on_token(user: *mut c_void, token: i32, text: *const c_char, size: usize) -> i32 {
    let call = &mut *(user as *mut Call);
    let go_on = catch_unwind(AssertUnwindSafe(|| {
        let bytes = if size == 0 { &[] } else { std::slice::from_raw_parts(text as *const u8, size) };
        (call.on_token)(token, std::str::from_utf8(bytes).expect("whole characters"))
    }));
    match go_on {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(panic) => {
            call.panic = Some(panic);
            1
        }
    }
}

impl Session {
    pub fn new(context: &Context, temperature: f32) -> Result<Session, Error> {
        let mut raw = null_mut();
        check(unsafe { ffi::mixtral_session_create(context.0.as_ptr(), null(), &mut raw) })?;
        let session = Session(Arc::new(Handle(NonNull::new(raw).expect("a session"))));
        let mut params = ffi::SamplerParams::default();
        check(unsafe { ffi::mixtral_sampler_params_init(&mut params, std::mem::size_of_val(&params)) })?;
        params.temperature = temperature;
        check(unsafe { ffi::mixtral_session_set_sampler(raw, &params) })?;
        Ok(session)
    }

    pub fn canceller(&self) -> Canceller {
        Canceller(self.0.clone())
    }

    pub fn feed(&mut self, tokens: &[i32]) -> Result<(), Error> {
        check(unsafe { ffi::mixtral_session_feed(self.0 .0.as_ptr(), tokens.as_ptr(), tokens.len(), 0) })
    }

    /// Calls `on_token(token, text)` on this thread for each token; false ends the text. Blocks until it is written.
    pub fn generate(&mut self, max_tokens: i64, mut on_token_: impl FnMut(i32, &str) -> bool) -> Result<(), Error> {
        let mut params = std::mem::MaybeUninit::<ffi::GenerateParams>::zeroed();
        let size = std::mem::size_of::<ffi::GenerateParams>();
        check(unsafe { ffi::mixtral_generate_params_init(params.as_mut_ptr(), size) })?;
        let mut call = Call { on_token: &mut on_token_, panic: None };
        let status = unsafe {
            let mut params = params.assume_init();
            params.max_tokens = max_tokens;
            params.on_token = Some(on_token);
            params.user = &mut call as *mut Call as *mut c_void;
            ffi::mixtral_session_generate(self.0 .0.as_ptr(), &params, null_mut())
        };
        match call.panic {
            Some(panic) => resume_unwind(panic),
            None => check(status),
        }
    }
}
