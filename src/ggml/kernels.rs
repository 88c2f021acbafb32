//! Our own kernels as nodes of a graph: what ggml calls, and what a kernel sees.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use super::sys;
use super::threads::Scratch;

/// A kernel bound to its parameters.
pub(super) struct Kernel {
    scratch: Arc<Scratch>,
    /// Scratch bytes of a thread.
    bytes: usize,
    run: Box<dyn Fn(Run<'_>) + Send + Sync>,
}

impl Kernel {
    pub(super) fn new(
        scratch: Arc<Scratch>,
        bytes: usize,
        run: impl Fn(Run<'_>) + Send + Sync + 'static,
    ) -> Self {
        Self { scratch, bytes, run: Box::new(run) }
    }
}

/// One thread's call for one node: its sources are computed, its own values are to be written.
pub(super) struct Run<'a> {
    node: &'a sys::ggml_tensor,
    pub(super) ith: c_int,
    pub(super) nth: c_int,
    scratch: &'a Scratch,
    bytes: usize,
}

impl Run<'_> {
    /// The node's values.
    pub(super) fn out(&self) -> *mut f32 {
        self.node.data.cast()
    }

    /// The values of a source.
    pub(super) fn source(&self, i: usize) -> *const f32 {
        self.tensor(i).data.cast_const().cast()
    }

    /// The header of a source.
    pub(super) fn tensor(&self, i: usize) -> &sys::ggml_tensor {
        // SAFETY: `Builder::custom` was given at least as many sources as kernels ask for.
        unsafe { &*self.node.src[i] }
    }

    /// Scratch memory of all threads, equal slices one after the other.
    pub(super) fn scratch(&self) -> *mut c_void {
        self.scratch.slice(0, self.bytes).cast()
    }

    /// This thread's slice of the scratch memory.
    pub(super) fn own_scratch(&self) -> *mut c_void {
        self.scratch.slice(self.ith as usize, self.bytes).cast()
    }
}

/// What ggml calls for a custom node. A panic in here would end the process: kernels have none.
pub(super) unsafe extern "C" fn trampoline(
    node: *mut sys::ggml_tensor,
    ith: c_int,
    nth: c_int,
    kernel: *mut c_void,
) {
    // SAFETY: `Builder::custom` passes a pointer to a kernel that the graph keeps, and ggml passes
    // the node that it computes.
    let (node, kernel) = unsafe { (&*node, &*kernel.cast::<Kernel>()) };
    (kernel.run)(Run { node, ith, nth, scratch: &kernel.scratch, bytes: kernel.bytes });
}
