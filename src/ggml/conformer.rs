//! Nodes of the sound tower beside products and norms: rows are frames, `[width, T]`.
//!
//! Interfaces: `ggml/kernels/kernels.h`; the plain twins are in `model/audio/`.

use std::ffi::{c_int, c_void};

use super::builder::Tensor;
use super::types::Type;

unsafe extern "C" {
    fn g3n_frame_sums(
        x: *const f32,
        width: i64,
        frames: i64,
        sums: *const f32,
        out: *mut f32,
        ith: c_int,
        nth: c_int,
    );
    fn g3n_cumulative_norm_relu(
        x: *const f32,
        sums: *const f32,
        squares: *const f32,
        w: *const f32,
        eps: f32,
        channels: i64,
        width: i64,
        frames: i64,
        out: *mut f32,
        ith: c_int,
        nth: c_int,
    );
    fn g3n_silu(x: *const f32, n: i64, out: *mut f32, ith: c_int, nth: c_int);
    fn g3n_glu(x: *const f32, width: i64, frames: i64, out: *mut f32, ith: c_int, nth: c_int);
    fn g3n_light_convolution(
        x: *const f32,
        w: *const f32,
        taps: i64,
        norm: *const f32,
        eps: f32,
        bound: f32,
        step: i64,
        width: i64,
        frames: i64,
        out: *mut f32,
        ith: c_int,
        nth: c_int,
    );
    fn g3n_local_attention(
        q: *const f32,
        k: *const f32,
        v: *const f32,
        r: *const f32,
        scale: *const f32,
        cap: f32,
        past: i64,
        future: i64,
        head_dim: i64,
        heads: i64,
        frames: i64,
        out: *mut f32,
        scratch: *mut c_void,
        ith: c_int,
        nth: c_int,
    );
}

fn long(n: usize) -> i64 {
    n as i64
}

/// Rows that an attention's queries see, and what it does with their scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Rows before a query's own.
    pub past: usize,
    /// Rows after it.
    pub future: usize,
    /// Scores are `cap · tanh(s / cap)`.
    pub cap: f32,
}

impl Span {
    /// Rows in all, the query's own among them.
    pub fn rows(&self) -> usize {
        self.past + 1 + self.future
    }
}

impl<'b> Tensor<'b> {
    fn assert_frames(self) -> [usize; 2] {
        let [width, frames, n2, n3] = self.ne();
        assert!(n2 * n3 == 1 && width > 0, "rows, not {:?}", self.ne());
        assert!(self.ty() == Type::F32 && self.is_contiguous(), "kernels read contiguous f32");
        [width, frames]
    }

    fn assert_vector(self, len: usize) {
        assert_eq!(self.assert_frames(), [len, 1], "a vector");
    }

    /// `relu` of the cumulative group norm: one group of all values of a row, each row with the
    /// mean and variance of all rows up to it. `weight` `[C]` is repeated over the row.
    pub fn cumulative_norm_relu(self, weight: Self, eps: f32) -> Self {
        let [width, frames] = self.assert_frames();
        let [channels, ..] = weight.ne();
        weight.assert_vector(channels);
        assert!(width.is_multiple_of(channels), "{channels} channels in rows of {width}");
        let ne = [frames, 1, 1, 1];
        let sums = self.b.custom(Type::F32, ne, &[self], 0, move |run| {
            let (x, none) = (run.source(0), std::ptr::null());
            // SAFETY: the rows were checked above, the node has a value for each; null is allowed.
            unsafe {
                g3n_frame_sums(x, long(width), long(frames), none, run.out(), run.ith, run.nth);
            }
        });
        let squares = self.b.custom(Type::F32, ne, &[self, sums], 0, move |run| {
            let (x, sums) = (run.source(0), run.source(1));
            // SAFETY: as above; there is a sum for each row.
            unsafe {
                g3n_frame_sums(x, long(width), long(frames), sums, run.out(), run.ith, run.nth);
            }
        });
        let args = [self, sums, squares, weight];
        self.b.custom(Type::F32, self.ne(), &args, 0, move |run| {
            // SAFETY: the shapes of all sources were checked above, the node has the rows' own.
            unsafe {
                g3n_cumulative_norm_relu(
                    run.source(0),
                    run.source(1),
                    run.source(2),
                    run.source(3),
                    eps,
                    long(channels),
                    long(width),
                    long(frames),
                    run.out(),
                    run.ith,
                    run.nth,
                );
            }
        })
    }

    /// `x · sigmoid(x)` with our kernel.
    pub fn fused_silu(self) -> Self {
        let [width, frames] = self.assert_frames();
        self.b.custom(Type::F32, self.ne(), &[self], 0, move |run| {
            let n = long(width * frames);
            // SAFETY: source and node have so many values.
            unsafe { g3n_silu(run.source(0), n, run.out(), run.ith, run.nth) }
        })
    }

    /// The first half of each row times the sigmoid of the second: `[2·n, T] → [n, T]`.
    pub fn glu(self) -> Self {
        let [both, frames] = self.assert_frames();
        assert!(both.is_multiple_of(2), "two halves of {both}");
        let width = both / 2;
        self.b.custom(Type::F32, [width, frames, 1, 1], &[self], 0, move |run| {
            let (x, out) = (run.source(0), run.out());
            // SAFETY: rows of twice the node's width.
            unsafe { g3n_glu(x, long(width), long(frames), out, run.ith, run.nth) }
        })
    }

    /// `silu(RMS(clip(y); norm))`, y the causal convolution of each column by itself, at every
    /// `step`-th row. `weights` `[E, taps]`, the last tap the row's own.
    pub fn light_convolution(
        self,
        weights: Self,
        norm: Self,
        (eps, bound): (f32, f32),
        step: usize,
    ) -> Self {
        let [width, frames] = self.assert_frames();
        let [found, taps] = weights.assert_frames();
        assert!(found == width && step > 0, "weights {:?}", weights.ne());
        norm.assert_vector(width);
        let ne = [width, frames.div_ceil(step), 1, 1];
        self.b.custom(Type::F32, ne, &[self, weights, norm], 0, move |run| {
            // SAFETY: the shapes were checked above, the node has every step-th row.
            unsafe {
                g3n_light_convolution(
                    run.source(0),
                    run.source(1),
                    long(taps),
                    run.source(2),
                    eps,
                    bound,
                    long(step),
                    long(width),
                    long(frames),
                    run.out(),
                    run.ith,
                    run.nth,
                );
            }
        })
    }

    /// Attention of each row over those near it; `self`, `k`, `v` `[d·H, T]`, `positions`
    /// `[d·H, span]` from the farthest past on, `scale` `[d]` of the queries.
    pub fn local_attention(
        self,
        k: Self,
        v: Self,
        positions: Self,
        scale: Self,
        span: Span,
    ) -> Self {
        let [width, frames] = self.assert_frames();
        let [d, ..] = scale.ne();
        scale.assert_vector(d);
        assert!(width.is_multiple_of(d) && span.cap > 0.0, "heads of {d} in {width}");
        assert!(k.assert_frames() == [width, frames] && v.assert_frames() == [width, frames]);
        assert_eq!(positions.assert_frames(), [width, span.rows()]);
        let scratch = (d.next_multiple_of(16) + span.rows() + 32) * size_of::<f32>();
        let args = [self, k, v, positions, scale];
        self.b.custom(Type::F32, self.ne(), &args, scratch, move |run| {
            // SAFETY: the shapes of all sources were checked above, the scratch memory holds a
            // query and the scores of its span.
            unsafe {
                g3n_local_attention(
                    run.source(0),
                    run.source(1),
                    run.source(2),
                    run.source(3),
                    run.source(4),
                    span.cap,
                    long(span.past),
                    long(span.future),
                    long(d),
                    long(width / d),
                    long(frames),
                    run.out(),
                    run.own_scratch(),
                    run.ith,
                    run.nth,
                );
            }
        })
    }
}
