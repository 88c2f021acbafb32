//! A finished graph: written once for a shape, run many times.

use std::ptr::NonNull;

use super::builder::{Builder, State};
use super::sys;
use super::threads::Threads;
use super::types::Type;

/// A handle to an input of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input(pub(super) usize);

/// A handle to an output of one graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output(pub(super) usize);

/// Why a run ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error("interrupted")]
    Interrupted,
    #[error("not enough memory for the graph's work buffers")]
    OutOfMemory,
}

/// Values that inputs take.
pub trait Element: Copy {
    const TYPE: Type;
}

impl Element for f32 {
    const TYPE: Type = Type::F32;
}
impl Element for half::f16 {
    const TYPE: Type = Type::F16;
}
impl Element for i32 {
    const TYPE: Type = Type::I32;
}
impl Element for i64 {
    const TYPE: Type = Type::I64;
}

pub struct Graph {
    ctx: NonNull<sys::ggml_context>,
    graph: NonNull<sys::ggml_cgraph>,
    allocator: sys::ggml_gallocr_t,
    state: State,
}

// SAFETY: the graph, its memory and its kernels belong to this struct alone; stored tensors are
// Send themselves.
unsafe impl Send for Graph {}

impl Graph {
    pub(super) fn new(builder: Builder) -> Result<Self, RunError> {
        let (ctx, graph) = (builder.ctx, builder.graph);
        let state = builder.state.take();
        // SAFETY: a plain constructor (of a few bytes: ggml itself checks for those).
        let allocator = unsafe { sys::ggml_gallocr_new(sys::ggml_backend_cpu_buffer_type()) };
        // From here on everything is freed by `drop`.
        let new = Self { ctx, graph, allocator, state };
        // SAFETY: the graph is complete, the allocator is new. False: no memory.
        match unsafe { sys::ggml_gallocr_alloc_graph(allocator, graph.as_ptr()) } {
            true => Ok(new),
            false => Err(RunError::OutOfMemory),
        }
    }

    /// Bytes of the intermediate values.
    pub fn memory(&self) -> usize {
        // SAFETY: the allocator is ours and has one buffer.
        unsafe { sys::ggml_gallocr_get_buffer_size(self.allocator, 0) }
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        // SAFETY: the graph is ours.
        (unsafe { sys::ggml_graph_n_nodes(self.graph.as_ptr()) }) as usize
    }

    /// Fills an input as a whole. Inputs that nothing reads have no memory and are passed over.
    pub fn write<T: Element>(&mut self, input: Input, values: &[T]) {
        // SAFETY: the header lives in our context.
        let tensor = unsafe { self.state.inputs[input.0].as_ref() };
        assert_eq!(Type::from_raw(tensor.type_), T::TYPE, "type of an input");
        assert_eq!(tensor.ne.iter().product::<i64>(), values.len() as i64, "size of an input");
        if tensor.data.is_null() {
            return;
        }
        // SAFETY: the input is contiguous and as large as `values`, checked above.
        unsafe {
            std::ptr::copy_nonoverlapping(values.as_ptr(), tensor.data.cast(), values.len());
        }
    }

    /// What the last run left in an output (f32).
    pub fn read(&self, output: Output) -> &[f32] {
        // SAFETY: the header lives in our context; an output keeps its memory until the next run.
        unsafe {
            let tensor = self.state.outputs[output.0].as_ref();
            assert_eq!(tensor.type_, sys::GGML_TYPE_F32, "outputs are f32");
            let len = tensor.ne.iter().product::<i64>() as usize;
            std::slice::from_raw_parts(tensor.data.cast(), len)
        }
    }

    /// Computes every node.
    ///
    /// # Errors
    /// The interrupt flag was set, or memory for the threads' work is lacking.
    pub fn run(&mut self, threads: &mut Threads) -> Result<(), RunError> {
        if !threads.reserve(self.state.scratch) {
            return Err(RunError::OutOfMemory);
        }
        // SAFETY: graph and backend are exclusively ours; every pointer in the graph is kept
        // alive by `state`.
        let status =
            unsafe { sys::ggml_backend_graph_compute(threads.backend(), self.graph.as_ptr()) };
        match status {
            sys::GGML_STATUS_SUCCESS => Ok(()),
            sys::GGML_STATUS_ABORTED => Err(RunError::Interrupted),
            _ => Err(RunError::OutOfMemory),
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made in `new` (the context in `Builder::new`), freed once.
        unsafe {
            sys::ggml_gallocr_free(self.allocator);
            sys::ggml_free(self.ctx.as_ptr());
        }
    }
}
