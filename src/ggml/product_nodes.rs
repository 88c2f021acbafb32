//! Nodes of our products: weights as the file has them, activations in 8 bits; and of what reads
//! such weights or the cache. Interfaces: `ggml/kernels/kernels.h`. The plain twin is
//! [`Tensor::mul_mat`], of attention [`Tensor::flash_attention`].

use super::builder::Tensor;
use super::fused;
use super::products as ffi;
use super::types::Type;

/// The kernels load whole cache lines; ggml's allocator gives multiples of 32.
pub(super) const LINE: usize = 64;

/// From this many tokens on a panel of widened weights pays; below, ggml reads them faster.
const FLOAT_TOKENS: usize = 12;

/// Rows of activations in 8 bits.
#[derive(Clone, Copy)]
pub struct Quantized<'b> {
    pub(super) bytes: Tensor<'b>,
    pub(super) k: usize,
    pub(super) rows: usize,
}

/// The first multiple of a cache line's length from `start` on; the tensor has a line to spare.
pub(super) fn aligned<T>(start: *const T) -> *mut u8 {
    let start = start.cast_mut().cast::<u8>();
    start.wrapping_add(start.align_offset(LINE))
}

impl<'b> Tensor<'b> {
    /// Has this weight `[k, m]` a product with 8-bit activations?
    pub fn has_product_kernel(self) -> bool {
        let [k, _, n2, n3] = self.ne();
        // SAFETY: looks at its arguments only.
        n2 * n3 == 1 && unsafe { ffi::g3n_product_supports(self.ty().raw() as i32, k as i64) } != 0
    }

    /// Rows `[k, T]` in 8 bits, k a multiple of 32.
    pub fn quantize_q8(self) -> Quantized<'b> {
        let [k, rows, n2, n3] = self.ne();
        assert!(n2 * n3 == 1 && self.ty() == Type::F32 && k.is_multiple_of(32));
        let stride = self.header().nb[1] / size_of::<f32>();
        assert_eq!(self.header().nb[0], size_of::<f32>(), "rows are contiguous");
        // SAFETY: looks at its argument only.
        let row = unsafe { ffi::g3n_q8_row_bytes(k as i64) };
        let ne = [row * rows + LINE, 1, 1, 1];
        let bytes = self.b.custom(Type::I8, ne, &[self], 0, move |run| {
            let out = aligned(run.out());
            for t in (run.ith as usize..rows).step_by(run.nth as usize) {
                // SAFETY: row t of source and node; the node has `rows` rows and a spare line.
                unsafe {
                    let x = run.source(0).add(t * stride);
                    ffi::g3n_q8_quantize(x, k as i64, out.add(t * row).cast());
                }
            }
        });
        Quantized { bytes, k, rows }
    }

    /// `selfᵀ · x` for a weight `[k, m]`: `[m, T]`.
    pub fn product_q8(self, x: Quantized<'b>) -> Self {
        let [k, m, ..] = self.ne();
        assert!(k == x.k && self.has_product_kernel(), "product of {:?} with {}", self.ne(), x.k);
        let (ty, n) = (self.ty().raw() as i32, x.rows);
        let w_stride = self.header().nb[1];
        // SAFETY: look at their arguments only.
        let (row, scratch) = unsafe {
            let scratch = ffi::g3n_product_scratch_bytes(ty, k as i64, n as i64);
            (ffi::g3n_q8_row_bytes(k as i64), scratch)
        };
        self.b.custom(Type::F32, [m, n, 1, 1], &[self, x.bytes], scratch, move |run| {
            // SAFETY: m rows of k weights, n rows of activations, m·n results; the scratch memory
            // is as large as asked for on every thread.
            unsafe {
                ffi::g3n_product(
                    ty,
                    run.source(0).cast(),
                    w_stride as i64,
                    k as i64,
                    m as i64,
                    aligned(run.source(1)).cast(),
                    row as i64,
                    n as i64,
                    run.out(),
                    m as i64,
                    run.scratch(),
                    run.ith,
                    run.nth,
                );
            }
        })
    }

    /// Has this weight `[k, m]` (F16, BF16, F32) a product with f32 activations that is the
    /// quicker way for so many tokens?
    pub fn has_float_kernel(self, tokens: usize) -> bool {
        let [k, _, n2, n3] = self.ne();
        let ty = self.ty().raw() as i32;
        // SAFETY: looks at its arguments only.
        let supported = unsafe { ffi::g3n_product_float_supports(ty, k as i64) } != 0;
        supported && n2 * n3 == 1 && tokens >= FLOAT_TOKENS
    }

    /// `selfᵀ · x` for a float weight `[k, m]` and f32 rows `[k, T]`: `[m, T]`. For batches; one
    /// row is as fast in [`Tensor::mul_mat`].
    pub fn product_float(self, x: Self) -> Self {
        let ([k, m, ..], [xk, n, x2, x3]) = (self.ne(), x.ne());
        assert!(
            k == xk && x2 * x3 == 1 && x.ty() == Type::F32 && self.has_float_kernel(FLOAT_TOKENS)
        );
        assert_eq!(x.header().nb[0], size_of::<f32>(), "rows are contiguous");
        let (ty, w_stride, x_stride) =
            (self.ty().raw() as i32, self.header().nb[1], x.header().nb[1]);
        // SAFETY: takes nothing.
        let scratch = unsafe { ffi::g3n_product_float_scratch_bytes() };
        self.b.custom(Type::F32, [m, n, 1, 1], &[self, x], scratch, move |run| {
            // SAFETY: m rows of k weights, n rows of activations, m·n results; the scratch memory
            // is as large as asked for on every thread.
            unsafe {
                ffi::g3n_product_float(
                    ty,
                    run.source(0).cast(),
                    w_stride as i64,
                    k as i64,
                    m as i64,
                    run.source(1),
                    x_stride as i64,
                    n as i64,
                    run.out(),
                    m as i64,
                    run.scratch(),
                    run.ith,
                    run.nth,
                );
            }
        })
    }

    /// For `up` weights `[k, F]`: `gelu_t(max(gate − cutoff, 0)) ⊙ (up · x)`, `[F, T]`, with the
    /// rows of `up` read only where the gate is above the cut-off.
    pub fn sparse_gated_up(self, gate: Self, cutoff: Self, x: Quantized<'b>) -> Self {
        let [k, f, ..] = self.ne();
        let t = x.rows;
        assert!(k == x.k && self.has_product_kernel());
        assert!(gate.ne() == [f, t, 1, 1] && gate.is_contiguous() && cutoff.ne()[0] == t);
        let ty = self.ty().raw() as i32;
        let w_stride = self.header().nb[1];
        // SAFETY: look at their arguments only.
        let (row, scratch) = unsafe {
            let scratch = fused::g3n_sparse_scratch_bytes(f as i64, t as i64);
            (ffi::g3n_q8_row_bytes(k as i64), scratch as usize)
        };
        let args = [self, gate, cutoff, x.bytes];
        self.b.custom(Type::F32, [f, t, 1, 1], &args, scratch, move |run| {
            // SAFETY: F rows of k weights, T rows of activations, F·T gates and results.
            unsafe {
                fused::g3n_sparse_gated_up(
                    ty,
                    run.source(0).cast(),
                    w_stride as i64,
                    k as i64,
                    f as i64,
                    run.source(1),
                    run.source(2),
                    aligned(run.source(3)).cast(),
                    row as i64,
                    t as i64,
                    run.out(),
                    run.own_scratch(),
                    run.ith,
                    run.nth,
                );
            }
        })
    }

    /// Attention of q `[D, H, T]` over a cache: `k` and `v` are `[D·K, slots]` slices of f32, f16
    /// or q8_0, `mask` f16 `[slots, T]`; scale 1. The result is `[D, H, T]`.
    pub fn attention(self, k: Self, v: Self, mask: Self) -> Self {
        let [d, heads, t, _] = self.ne();
        let [width, slots, ..] = k.ne();
        assert!(self.ty() == Type::F32 && self.is_contiguous() && k.ne() == v.ne());
        assert!(k.ty() == v.ty() && k.header().nb == v.header().nb);
        assert!(matches!(k.ty(), Type::F32 | Type::F16 | Type::Q8_0));
        assert!(width.is_multiple_of(d) && heads.is_multiple_of(width / d));
        assert!(mask.ne() == [slots, t, 1, 1] && mask.is_contiguous() && mask.ty() == Type::F16);
        let (ty, stride) = (k.ty().raw() as i32, k.header().nb[1]);
        // SAFETY: looks at its argument only.
        let scratch = unsafe { fused::g3n_attention_scratch_bytes(d as i64) } as usize;
        let args = [self, k, v, mask];
        self.b.custom(Type::F32, [d, heads, t, 1], &args, scratch, move |run| {
            // SAFETY: the shapes were checked above, the strides are the sources' own.
            unsafe {
                fused::g3n_attention(
                    run.source(0),
                    ty,
                    run.source(1).cast(),
                    run.source(2).cast(),
                    stride as i64,
                    run.source(3).cast(),
                    slots as i64,
                    slots as i64,
                    d as i64,
                    heads as i64,
                    (width / d) as i64,
                    t as i64,
                    run.out(),
                    run.own_scratch(),
                    run.ith,
                    run.nth,
                );
            }
        })
    }
}
