//! The CPU backend with one thread pool, kept over all graphs (without it ggml starts and joins
//! threads for every graph, 40 µs each: ggml.md §4).

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use super::sys;

/// How long idle threads spin before they sleep, in ggml's unit of about 5 ms: longer than from one
/// decoded token to the next, and no longer. ggml's own choice is 50 times that.
const POLL: u32 = 1;

/// Threads that compute graphs, one graph at a time.
pub struct Threads {
    backend: sys::ggml_backend_t,
    pool: NonNull<sys::ggml_threadpool>,
    count: usize,
    interrupt: Arc<AtomicBool>,
    scratch: Arc<Scratch>,
    memory: Vec<Line>,
}

// SAFETY: the backend and the pool are used only through `&mut self`.
unsafe impl Send for Threads {}

/// Memory that kernels of all graphs use in turn; grown before a graph runs.
#[derive(Default)]
pub(super) struct Scratch {
    start: AtomicPtr<u64>,
}

impl Scratch {
    /// The memory of one thread: the `ith` of equal slices of `bytes`.
    pub(super) fn slice(&self, ith: usize, bytes: usize) -> *mut u8 {
        self.start.load(Ordering::Acquire).cast::<u8>().wrapping_add(ith * bytes)
    }
}

impl Threads {
    /// `count` threads, the calling one among them.
    pub fn new(count: usize) -> Self {
        super::init();
        let count = count.clamp(1, 512);
        let interrupt = Arc::new(AtomicBool::new(false));
        // SAFETY: plain constructors; the flag outlives the backend, which this struct owns too.
        unsafe {
            let mut params = sys::ggml_threadpool_params_default(count as i32);
            params.poll = POLL;
            let pool = NonNull::new(sys::ggml_threadpool_new(&raw mut params))
                .expect("threads can be started");
            let backend = sys::ggml_backend_cpu_init();
            assert!(!backend.is_null(), "memory for the CPU backend");
            sys::ggml_backend_cpu_set_n_threads(backend, count as i32);
            sys::ggml_backend_cpu_set_threadpool(backend, pool.as_ptr());
            let mut threads = Self {
                backend,
                pool,
                count,
                interrupt,
                scratch: Arc::default(),
                memory: Vec::new(),
            };
            threads.set_interrupt(threads.interrupt.clone());
            threads
        }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// The flag that ends a running graph between two nodes once it is true.
    pub fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.interrupt = flag;
        let data = Arc::as_ptr(&self.interrupt).cast_mut().cast::<c_void>();
        // SAFETY: the flag is kept alive by `self.interrupt` as long as the backend may call.
        unsafe { sys::ggml_backend_cpu_set_abort_callback(self.backend, Some(interrupted), data) };
    }

    pub(super) fn backend(&mut self) -> sys::ggml_backend_t {
        self.backend
    }

    pub(super) fn scratch(&self) -> Arc<Scratch> {
        self.scratch.clone()
    }

    /// Makes the scratch memory at least `bytes` for each thread. False: no memory.
    pub(super) fn reserve(&mut self, bytes: usize) -> bool {
        let lines = (bytes * self.count).div_ceil(size_of::<Line>());
        if self.memory.len() < lines {
            let more = lines - self.memory.len();
            if self.memory.try_reserve_exact(more).is_err() {
                return false;
            }
            self.memory.resize(lines, Line([0; 8]));
        }
        self.scratch.start.store(self.memory.as_mut_ptr().cast(), Ordering::Release);
        true
    }
}

/// One cache line, so that threads' slices do not share any.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "memory for C++")] [u64; 8]);

unsafe extern "C" fn interrupted(flag: *mut c_void) -> bool {
    // SAFETY: `set_interrupt` passes a pointer to an AtomicBool that `Threads` keeps alive.
    unsafe { &*flag.cast::<AtomicBool>() }.load(Ordering::Relaxed)
}

impl Drop for Threads {
    fn drop(&mut self) {
        // SAFETY: made in `new`, freed once; the backend goes first since it refers to the pool.
        unsafe {
            sys::ggml_backend_free(self.backend);
            sys::ggml_threadpool_free(self.pool.as_ptr());
        }
    }
}
