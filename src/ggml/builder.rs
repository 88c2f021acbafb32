//! Writing a graph: each method of [`Tensor`] adds a node and checks in Rust what ggml would
//! assert in C (an assertion there ends the process).

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Add, Div, Mul, Sub};
use std::ptr::NonNull;
use std::sync::Arc;

use super::graph::{Graph, Input, Output, RunError};
use super::kernels::{Kernel, Run};
use super::store::Stored;
use super::sys;
use super::threads::{Scratch, Threads};
use super::types::Type;

/// A graph being written. Nodes run in the order in which they are written.
pub struct Builder {
    pub(super) ctx: NonNull<sys::ggml_context>,
    pub(super) graph: NonNull<sys::ggml_cgraph>,
    pub(super) state: RefCell<State>,
    pub(super) scratch: Arc<Scratch>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) inputs: Vec<NonNull<sys::ggml_tensor>>,
    pub(super) outputs: Vec<NonNull<sys::ggml_tensor>>,
    #[expect(clippy::vec_box, reason = "ggml holds pointers to the kernels: they stay put")]
    pub(super) kernels: Vec<Box<Kernel>>,
    pub(super) stored: Vec<Stored>,
    /// Scratch bytes a thread needs.
    pub(super) scratch: usize,
}

/// A value in a graph that is being written: a handle, free to copy.
///
/// Shapes are in ggml's order: the row length first.
#[derive(Clone, Copy)]
pub struct Tensor<'b> {
    pub(super) b: &'b Builder,
    pub(super) ptr: NonNull<sys::ggml_tensor>,
    pub(super) _life: PhantomData<&'b Builder>,
}

impl Builder {
    /// A builder with room for `nodes` nodes and as many leaves.
    pub fn new(nodes: usize, threads: &Threads) -> Self {
        super::init();
        // SAFETY: plain queries and constructors; the context has room for every header (nodes,
        // inputs, views) and for the graph itself.
        unsafe {
            let size = sys::ggml_tensor_overhead() * nodes * 2
                + sys::ggml_graph_overhead_custom(nodes, false);
            let params = sys::ggml_init_params {
                mem_size: size,
                mem_buffer: std::ptr::null_mut(),
                no_alloc: true,
            };
            let ctx = NonNull::new(sys::ggml_init(params)).expect("memory for a graph");
            let graph = NonNull::new(sys::ggml_new_graph_custom(ctx.as_ptr(), nodes, false))
                .expect("room for the graph");
            Self { ctx, graph, state: RefCell::default(), scratch: threads.scratch() }
        }
    }

    fn wrap(&self, ptr: *mut sys::ggml_tensor) -> Tensor<'_> {
        Tensor { b: self, ptr: NonNull::new(ptr).expect("a node"), _life: PhantomData }
    }

    /// A value that is written before each run.
    pub fn input(&self, ty: Type, ne: [usize; 4]) -> (Tensor<'_>, Input) {
        let n = ne.map(|n| n as i64);
        // SAFETY: the context is ours and has room.
        let tensor = self.wrap(unsafe {
            let t = sys::ggml_new_tensor_4d(self.ctx.as_ptr(), ty.raw(), n[0], n[1], n[2], n[3]);
            sys::ggml_set_input(t);
            t
        });
        let mut state = self.state.borrow_mut();
        state.inputs.push(tensor.ptr);
        (tensor, Input(state.inputs.len() - 1))
    }

    /// A value that can be read after each run; the node is scheduled here.
    pub fn output(&self, tensor: Tensor<'_>) -> Output {
        assert!(tensor.is_contiguous(), "an output is read as one piece");
        // SAFETY: the tensor is a node of this graph.
        unsafe { sys::ggml_set_output(tensor.ptr.as_ptr()) };
        self.run(tensor);
        let mut state = self.state.borrow_mut();
        state.outputs.push(tensor.ptr);
        Output(state.outputs.len() - 1)
    }

    /// Schedules a node here, with all it needs; for effects that nothing reads (cache writes).
    pub fn run(&self, tensor: Tensor<'_>) {
        // SAFETY: the tensor is a node of this graph's context.
        unsafe { sys::ggml_build_forward_expand(self.graph.as_ptr(), tensor.ptr.as_ptr()) };
    }

    /// A weight or cache tensor, for use in this graph.
    pub fn stored(&self, stored: &Stored) -> Tensor<'_> {
        self.state.borrow_mut().stored.push(stored.clone());
        self.wrap(stored.raw())
    }

    /// Ends the writing: allocates memory for the intermediate values.
    ///
    /// # Errors
    /// There is no memory for them.
    pub fn finish(self) -> Result<Graph, RunError> {
        Graph::new(self)
    }

    /// A node that a function of ours computes, on all threads at once; `scratch` bytes a thread.
    pub(super) fn custom<'b>(
        &'b self,
        ty: Type,
        ne: [usize; 4],
        args: &[Tensor<'b>],
        scratch: usize,
        run: impl Fn(Run<'_>) + Send + Sync + 'static,
    ) -> Tensor<'b> {
        assert!(args.len() < 10, "ggml nodes have at most ten sources");
        let scratch = scratch.next_multiple_of(64);
        let kernel = Box::new(Kernel::new(self.scratch.clone(), scratch, run));
        let data: *const Kernel = &raw const *kernel;
        let mut sources: Vec<_> = args.iter().map(|t| t.ptr.as_ptr()).collect();
        let n = ne.map(|n| n as i64);
        // SAFETY: the sources are nodes of this context; `data` points into a box that the graph
        // keeps; the trampoline is made for that type.
        let node = unsafe {
            sys::ggml_custom_4d(
                self.ctx.as_ptr(),
                ty.raw(),
                n[0],
                n[1],
                n[2],
                n[3],
                sources.as_mut_ptr(),
                sources.len() as i32,
                Some(super::kernels::trampoline),
                -1, // GGML_N_TASKS_MAX: all threads
                data.cast_mut().cast(),
            )
        };
        let mut state = self.state.borrow_mut();
        state.kernels.push(kernel);
        state.scratch = state.scratch.max(scratch);
        drop(state);
        self.wrap(node)
    }
}

impl<'b> Tensor<'b> {
    pub(super) fn header(&self) -> &'b sys::ggml_tensor {
        // SAFETY: the header lives in the builder's (or a stored tensor's) context; while the
        // graph is written nobody changes it but methods here, which hold no reference meanwhile.
        unsafe { self.ptr.as_ref() }
    }

    fn raw(self) -> *mut sys::ggml_tensor {
        self.ptr.as_ptr()
    }

    fn ctx(self) -> *mut sys::ggml_context {
        self.b.ctx.as_ptr()
    }

    pub fn builder(self) -> &'b Builder {
        self.b
    }

    pub fn ne(self) -> [usize; 4] {
        self.header().ne.map(|n| n as usize)
    }

    pub fn ty(self) -> Type {
        Type::from_raw(self.header().type_)
    }

    pub fn elements(self) -> usize {
        self.ne().iter().product()
    }

    pub fn is_contiguous(self) -> bool {
        // SAFETY: reads a valid header.
        unsafe { sys::ggml_is_contiguous(self.raw()) }
    }

    /// Can `other` be repeated to this shape?
    fn repeats(self, other: Tensor<'_>) -> bool {
        self.ne().iter().zip(other.ne()).all(|(a, b)| b > 0 && a.is_multiple_of(b))
    }

    fn unary(
        self,
        op: unsafe extern "C" fn(
            *mut sys::ggml_context,
            *mut sys::ggml_tensor,
        ) -> *mut sys::ggml_tensor,
    ) -> Self {
        assert_eq!(self.ty(), Type::F32, "elementwise operations are in f32");
        // SAFETY: an elementwise function of one f32 node of this context.
        self.b.wrap(unsafe { op(self.ctx(), self.raw()) })
    }

    fn binary(
        self,
        other: Self,
        op: unsafe extern "C" fn(
            *mut sys::ggml_context,
            *mut sys::ggml_tensor,
            *mut sys::ggml_tensor,
        ) -> *mut sys::ggml_tensor,
    ) -> Self {
        assert_eq!((self.ty(), other.ty()), (Type::F32, Type::F32), "elementwise in f32");
        assert!(self.repeats(other), "{:?} does not repeat to {:?}", other.ne(), self.ne());
        // SAFETY: the shapes repeat, the types fit.
        self.b.wrap(unsafe { op(self.ctx(), self.raw(), other.raw()) })
    }

    pub fn sqr(self) -> Self {
        self.unary(sys::ggml_sqr)
    }

    pub fn sqrt(self) -> Self {
        self.unary(sys::ggml_sqrt)
    }

    pub fn tanh(self) -> Self {
        self.unary(sys::ggml_tanh)
    }

    pub fn relu(self) -> Self {
        self.unary(sys::ggml_relu)
    }

    pub fn sigmoid(self) -> Self {
        self.unary(sys::ggml_sigmoid)
    }

    /// `x · sigmoid(x)`.
    pub fn silu(self) -> Self {
        self.unary(sys::ggml_silu)
    }

    /// Mean over each row: `[1, …]`.
    pub fn mean(self) -> Self {
        self.unary(sys::ggml_mean)
    }

    pub fn scale(self, factor: f32) -> Self {
        assert_eq!(self.ty(), Type::F32);
        // SAFETY: an f32 node of this context.
        self.b.wrap(unsafe { sys::ggml_scale(self.ctx(), self.raw(), factor) })
    }

    /// `self · factor + bias`.
    pub fn scale_bias(self, factor: f32, bias: f32) -> Self {
        assert_eq!(self.ty(), Type::F32);
        // SAFETY: an f32 node of this context.
        self.b.wrap(unsafe { sys::ggml_scale_bias(self.ctx(), self.raw(), factor, bias) })
    }

    /// `max(self, low)`.
    pub fn at_least(self, low: f32) -> Self {
        assert_eq!(self.ty(), Type::F32);
        // SAFETY: an f32 node; ggml clamps in place, hence the copy first.
        self.b.wrap(unsafe {
            let copy = sys::ggml_scale(self.ctx(), self.raw(), 1.0);
            sys::ggml_clamp(self.ctx(), copy, low, f32::MAX)
        })
    }

    /// Values beyond ±`bound` become it.
    pub fn clip(self, bound: f32) -> Self {
        assert_eq!(self.ty(), Type::F32);
        // SAFETY: an f32 node; ggml clamps in place, hence the copy first.
        self.b.wrap(unsafe {
            let copy = sys::ggml_scale(self.ctx(), self.raw(), 1.0);
            sys::ggml_clamp(self.ctx(), copy, -bound, bound)
        })
    }

    /// Root-mean-square norm over each row, without weight.
    pub fn rms_norm(self, eps: f32) -> Self {
        assert_eq!(self.ty(), Type::F32);
        // SAFETY: an f32 node of this context.
        self.b.wrap(unsafe { sys::ggml_rms_norm(self.ctx(), self.raw(), eps) })
    }

    /// `weightᵀ · self`: `[k, m] × [k, n] → [m, n]`, batched over the outer dimensions of `self`.
    pub fn mul_mat(self, weight: Self) -> Self {
        let (w, x) = (weight.ne(), self.ne());
        assert_eq!(w[0], x[0], "inner lengths of a product {w:?} · {x:?}");
        assert!(x[2].is_multiple_of(w[2]) && x[3].is_multiple_of(w[3]), "{w:?} · {x:?}");
        assert!(self.ty() == Type::F32 && self.header().nb[0] == 4, "a product's rows are f32");
        // SAFETY: the shapes fit, rows are contiguous, the weight's type was checked at load.
        self.b.wrap(unsafe { sys::ggml_mul_mat(self.ctx(), weight.raw(), self.raw()) })
    }

    /// Rows of a `[n, rows]` tensor by index, as f32: `[n, indices]`.
    pub fn get_rows(self, indices: Self) -> Self {
        assert_eq!(indices.ty(), Type::I32);
        assert_eq!(self.ne()[2], indices.ne()[1], "outer dimensions of get_rows");
        // SAFETY: the shapes fit; indices are checked by whoever writes them.
        self.b.wrap(unsafe { sys::ggml_get_rows(self.ctx(), self.raw(), indices.raw()) })
    }

    /// Writes `rows` into this stored tensor at `indices` (i64); the result must be scheduled.
    pub fn set_rows(self, rows: Self, indices: Self) -> Self {
        assert_eq!(indices.ty(), Type::I64);
        assert_eq!(self.ne()[0], rows.ne()[0], "row lengths of set_rows");
        assert_eq!(rows.ne()[1], indices.ne()[0], "one index a row");
        assert!(rows.ne()[2..] == self.ne()[2..], "outer dimensions of set_rows");
        assert!(rows.ty() == Type::F32 && rows.header().nb[0] == 4);
        // SAFETY: the shapes fit; indices are checked by whoever writes them.
        self.b
            .wrap(unsafe { sys::ggml_set_rows(self.ctx(), self.raw(), rows.raw(), indices.raw()) })
    }

    /// Joins along dimension `dim`.
    pub fn concat(self, other: Self, dim: usize) -> Self {
        let (a, b) = (self.ne(), other.ne());
        assert!((0..4).all(|i| i == dim || a[i] == b[i]), "concat of {a:?} and {b:?}");
        assert_eq!(self.ty(), other.ty());
        // SAFETY: the shapes fit.
        self.b.wrap(unsafe { sys::ggml_concat(self.ctx(), self.raw(), other.raw(), dim as i32) })
    }

    /// The same values in another shape; the tensor is contiguous.
    pub fn reshape(self, ne: [usize; 4]) -> Self {
        assert!(self.is_contiguous(), "reshape of a tensor in pieces");
        assert_eq!(self.elements(), ne.iter().product::<usize>(), "reshape to {ne:?}");
        let n = ne.map(|n| n as i64);
        // SAFETY: contiguous, the same number of elements.
        self.b.wrap(unsafe { sys::ggml_reshape_4d(self.ctx(), self.raw(), n[0], n[1], n[2], n[3]) })
    }

    /// Elements `start..start + len` of dimension `dim`, without a copy. In dimension 0 both are
    /// whole blocks.
    pub fn slice(self, dim: usize, start: usize, len: usize) -> Self {
        let mut ne = self.ne();
        assert!(start + len <= ne[dim], "slice {start}+{len} of {ne:?} along {dim}");
        let nb = self.header().nb;
        let offset = if dim == 0 { self.ty().row_bytes(start) } else { start * nb[dim] };
        if dim == 0 {
            assert!(len.is_multiple_of(self.ty().block_len()));
        }
        ne[dim] = len;
        self.view(ne, [nb[1], nb[2], nb[3]], offset)
    }

    /// Rows 0, step, 2·step … of a matrix, a view.
    pub fn every_row(self, step: usize) -> Self {
        let ([n, rows, n2, n3], nb) = (self.ne(), self.header().nb);
        assert!(step > 0 && n2 * n3 == 1, "rows of a matrix, not {:?}", self.ne());
        let (rows, stride) = (rows.div_ceil(step), nb[1] * step);
        self.view([n, rows, 1, 1], [stride, stride * rows, stride * rows], 0)
    }

    /// A view with dimensions in another order: result dimension `i` is dimension `order[i]`.
    pub fn permute(self, order: [usize; 4]) -> Self {
        let mut place = [0i32; 4];
        for (to, &from) in order.iter().enumerate() {
            place[from] = to as i32;
        }
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3], "a permutation");
        // SAFETY: ggml takes, for each source dimension, its place in the result.
        self.b.wrap(unsafe {
            sys::ggml_permute(self.ctx(), self.raw(), place[0], place[1], place[2], place[3])
        })
    }

    /// A contiguous copy.
    pub fn cont(self) -> Self {
        // SAFETY: any node of this context.
        self.b.wrap(unsafe { sys::ggml_cont(self.ctx(), self.raw()) })
    }

    /// A copy in another type.
    pub fn cast(self, ty: Type) -> Self {
        // SAFETY: any node of this context; the type is a checked one.
        self.b.wrap(unsafe { sys::ggml_cast(self.ctx(), self.raw(), ty.raw()) })
    }

    fn view(self, ne: [usize; 4], nb: [usize; 3], offset: usize) -> Self {
        let n = ne.map(|n| n as i64);
        // SAFETY: `slice` keeps the view inside the tensor.
        self.b.wrap(unsafe {
            sys::ggml_view_4d(
                self.ctx(),
                self.raw(),
                n[0],
                n[1],
                n[2],
                n[3],
                nb[0],
                nb[1],
                nb[2],
                offset,
            )
        })
    }

    /// `softmax(self · scale + mask)` over each row; `mask` is f32 or f16 `[keys, queries]`.
    pub fn soft_max(self, mask: Self, scale: f32) -> Self {
        let (x, m) = (self.ne(), mask.ne());
        assert!(x[0] == m[0] && m[1] >= x[1], "mask {m:?} for {x:?}");
        assert!(self.is_contiguous() && mask.is_contiguous());
        assert!(x[2].is_multiple_of(m[2]) && x[3].is_multiple_of(m[3]));
        // SAFETY: the shapes fit, both are contiguous.
        self.b
            .wrap(unsafe { sys::ggml_soft_max_ext(self.ctx(), self.raw(), mask.raw(), scale, 0.0) })
    }

    /// `softmax(self · scale)` over each row.
    pub fn soft_max_rows(self, scale: f32) -> Self {
        assert!(self.ty() == Type::F32 && self.is_contiguous());
        let none = std::ptr::null_mut();
        // SAFETY: a contiguous f32 node; ggml takes no mask for null.
        self.b.wrap(unsafe { sys::ggml_soft_max_ext(self.ctx(), self.raw(), none, scale, 0.0) })
    }

    /// Attention without materialised scores. `self` is q `[d, queries, heads]`, `k` and `v`
    /// `[d, keys, kv_heads]`, `mask` f16 `[keys, queries]`; the result is `[d, heads, queries]`.
    pub fn flash_attention(self, k: Self, v: Self, mask: Self, scale: f32) -> Self {
        let (q, kn, vn, m) = (self.ne(), k.ne(), v.ne(), mask.ne());
        assert!(q[0] == kn[0] && kn == vn, "attention of {q:?} over {kn:?}, {vn:?}");
        assert!(q[2].is_multiple_of(kn[2]), "query heads share KV heads evenly");
        assert!(mask.ty() == Type::F16 && m[0] == kn[1] && m[1] >= q[1]);
        assert!(mask.is_contiguous() && self.ty() == Type::F32 && k.ty() == v.ty());
        // SAFETY: the shapes and types fit ggml's assertions; rows of k and v are contiguous
        // since they are slices of a cache along outer dimensions.
        self.b.wrap(unsafe {
            let node = sys::ggml_flash_attn_ext(
                self.ctx(),
                self.raw(),
                k.raw(),
                v.raw(),
                mask.raw(),
                scale,
                0.0,
                0.0,
            );
            sys::ggml_flash_attn_ext_set_prec(node, sys::GGML_PREC_F32);
            node
        })
    }
}

impl Add for Tensor<'_> {
    type Output = Self;

    /// Elementwise; the right side is repeated to the left side's shape.
    fn add(self, other: Self) -> Self {
        self.binary(other, sys::ggml_add)
    }
}

impl Sub for Tensor<'_> {
    type Output = Self;

    /// Elementwise; the right side is repeated to the left side's shape.
    fn sub(self, other: Self) -> Self {
        self.binary(other, sys::ggml_sub)
    }
}

impl Mul for Tensor<'_> {
    type Output = Self;

    /// Elementwise; the right side is repeated to the left side's shape.
    fn mul(self, other: Self) -> Self {
        self.binary(other, sys::ggml_mul)
    }
}

impl Div for Tensor<'_> {
    type Output = Self;

    /// Elementwise; the right side is repeated to the left side's shape.
    fn div(self, other: Self) -> Self {
        self.binary(other, sys::ggml_div)
    }
}
