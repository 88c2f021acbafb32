//! Our own kernels as nodes of a graph.

use std::ffi::c_void;

use super::sys;

/// A kernel bound to its parameters; `run` is called on every thread of the pool at once.
pub(super) trait Kernel: Send + Sync {
    /// Computes this thread's share of `node`.
    ///
    /// # Safety
    /// `node` is the node that was made with this kernel, its sources are computed.
    unsafe fn run(&self, node: &sys::ggml_tensor, ith: usize, nth: usize);

    /// Scratch memory that each thread needs.
    fn scratch_bytes(&self) -> usize {
        0
    }
}

/// What ggml calls for a custom node. A panic in here would end the process: kernels have none.
pub(super) unsafe extern "C" fn trampoline(
    node: *mut sys::ggml_tensor,
    ith: i32,
    nth: i32,
    kernel: *mut c_void,
) {
    // SAFETY: `Builder::custom` passes a pointer to a boxed kernel that the graph keeps, and ggml
    // passes the node that it computes.
    unsafe {
        let kernel = &*kernel.cast::<Box<dyn Kernel>>();
        kernel.run(&*node, ith as usize, nth as usize);
    }
}
