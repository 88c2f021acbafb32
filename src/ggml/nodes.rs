//! Nodes that our fused kernels compute. Formulas and shapes: `ggml/kernels/kernels.h`; each has
//! a plain twin in `model/text/`.

use super::builder::Tensor;
use super::fused as ffi;
use super::types::Type;

/// Lengths of a node as the kernels take them.
fn long(n: usize) -> i64 {
    n as i64
}

impl<'b> Tensor<'b> {
    fn assert_plain(self, ne: [usize; 4]) {
        assert_eq!(self.ne(), ne, "shape of a kernel's source");
        assert!(self.ty() == Type::F32 && self.is_contiguous(), "kernels read contiguous f32");
    }

    /// AltUp's predictions from the streams `[E, T, A]`, in place: `self` has them from here on.
    pub fn altup_predict(
        self,
        router_norm: Self,
        router: Self,
        coefs: Self,
        active: usize,
        eps: f32,
    ) -> Self {
        let [e, t, a, _] = self.ne();
        self.assert_plain([e, t, a, 1]);
        router_norm.assert_plain([e, 1, 1, 1]);
        router.assert_plain([e, a, 1, 1]);
        coefs.assert_plain([a, a * a, 1, 1]);
        assert!(a <= ffi::MAX_STREAMS && active < a);
        let args = [self, router_norm, router, coefs];
        let done = self.b.custom(Type::F32, [1, 1, 1, 1], &args, 0, move |run| {
            // SAFETY: the shapes of the sources were checked above. The streams are written
            // although they are a source: this node is scheduled at once, after all that read
            // them before.
            unsafe {
                ffi::g3n_altup_predict(
                    run.source(0),
                    long(t),
                    long(e),
                    a as i32,
                    active as i32,
                    run.source(1),
                    run.source(2),
                    run.source(3),
                    eps,
                    run.source(0).cast_mut(),
                    run.ith,
                    run.nth,
                );
            }
        });
        self.b.run(done);
        self
    }

    /// AltUp's correction of predictions `[E, T, A]` by the layer's result `[E, T]`: the streams
    /// `[E, T, A]` and the active one times `scale`, `[E, T]`.
    pub fn altup_correct(
        self,
        activated: Self,
        router_norm: Self,
        router: Self,
        coefs: Self,
        scale: Self,
        (active, eps): (usize, f32),
    ) -> (Self, Self) {
        let [e, t, a, _] = self.ne();
        self.assert_plain([e, t, a, 1]);
        activated.assert_plain([e, t, 1, 1]);
        router_norm.assert_plain([e, 1, 1, 1]);
        router.assert_plain([e, a, 1, 1]);
        coefs.assert_plain([a, a, 1, 1]);
        scale.assert_plain([e, 1, 1, 1]);
        assert!(a <= ffi::MAX_STREAMS && active < a);
        let args = [self, activated, router_norm, router, coefs, scale];
        let both = self.b.custom(Type::F32, [e, t, a + 1, 1], &args, 0, move |run| {
            // SAFETY: the shapes of sources and node were checked above; the scaled stream is the
            // last of the node's a + 1 slices.
            unsafe {
                ffi::g3n_altup_correct(
                    run.source(0),
                    run.source(1),
                    long(t),
                    long(e),
                    a as i32,
                    active as i32,
                    run.source(2),
                    run.source(3),
                    run.source(4),
                    run.source(5),
                    eps,
                    run.out(),
                    run.out().add(e * t * a),
                    run.ith,
                    run.nth,
                );
            }
        });
        (both.slice(2, 0, a), both.slice(2, a, 1).reshape([e, t, 1, 1]))
    }

    /// Adds `RMS(row; norm)` to every stream but the first, in place: `self` has the sums from
    /// here on. `row` is `[E, T]`.
    pub fn add_to_streams(self, row: Self, norm: Self, eps: f32) -> Self {
        let [e, t, a, _] = self.ne();
        self.assert_plain([e, t, a, 1]);
        row.assert_plain([e, t, 1, 1]);
        norm.assert_plain([e, 1, 1, 1]);
        let args = [self, row, norm];
        let done = self.b.custom(Type::F32, [1, 1, 1, 1], &args, 0, move |run| {
            // SAFETY: the shapes were checked above. The streams are written although they are a
            // source: nodes run in the order in which they are scheduled, and this one is
            // scheduled at once, after all that read the streams before.
            unsafe {
                ffi::g3n_add_to_streams(
                    run.source(0).cast_mut(),
                    run.source(1),
                    run.source(2),
                    eps,
                    long(t),
                    long(e),
                    a as i32,
                    run.ith,
                    run.nth,
                );
            }
        });
        self.b.run(done);
        self
    }

    /// `softmax(x · scale)` over each row, scale above 0.
    pub fn fused_soft_max(self, scale: f32) -> Self {
        let ne = self.ne();
        self.assert_plain(ne);
        assert!(scale > 0.0 && ne[0] > 0);
        let (width, rows) = (long(ne[0]), long(ne[1] * ne[2] * ne[3]));
        self.b.custom(Type::F32, ne, &[self], 0, move |run| {
            // SAFETY: the source was checked above, the node has its shape.
            unsafe {
                ffi::g3n_soft_max(run.source(0), scale, width, rows, run.out(), run.ith, run.nth);
            }
        })
    }

    /// `RMS(x; weight)` over each row.
    pub fn rms_norm_weighted(self, weight: Self, eps: f32) -> Self {
        let ne = self.ne();
        weight.assert_plain([ne[0], 1, 1, 1]);
        self.assert_plain(ne);
        self.b.custom(Type::F32, ne, &[self, weight], 0, move |run| {
            // SAFETY: source and node are contiguous rows of one length.
            unsafe {
                ffi::g3n_rms_norm(
                    run.source(0),
                    long(ne[0]),
                    run.source(1),
                    eps,
                    long(ne[0]),
                    long(ne[1] * ne[2] * ne[3]),
                    run.out(),
                    long(ne[0]),
                    run.ith,
                    run.nth,
                );
            }
        })
    }

    /// The residuals around attention; `self` is the active prediction `[E, T]`. Returns
    /// `y = ((x + RMS(attn)) + (h + RMS(laurel)))/√2` and `RMS(y; ffn_norm)`, `[E, T]` each.
    pub fn attention_residual(
        self,
        (attn, attn_norm): (Self, Self),
        h: Self,
        (laurel, laurel_norm): (Self, Self),
        ffn_norm: Self,
        eps: f32,
    ) -> (Self, Self) {
        let [e, t, ..] = self.ne();
        for rows in [self, attn, h, laurel] {
            rows.assert_plain([e, t, 1, 1]);
        }
        for weight in [attn_norm, laurel_norm, ffn_norm] {
            weight.assert_plain([e, 1, 1, 1]);
        }
        let args = [self, attn, attn_norm, h, laurel, laurel_norm, ffn_norm];
        let both = self.b.custom(Type::F32, [e, t, 2, 1], &args, 0, move |run| {
            // SAFETY: the shapes were checked above; y and its norm are the node's two slices.
            unsafe {
                ffi::g3n_residual(
                    run.source(0),
                    run.source(1),
                    run.source(2),
                    run.source(3),
                    run.source(4),
                    run.source(5),
                    run.source(6),
                    eps,
                    long(t),
                    long(e),
                    run.out(),
                    run.out().add(e * t),
                    run.ith,
                    run.nth,
                );
            }
        });
        let slice = |i| both.slice(2, i, 1).reshape([e, t, 1, 1]);
        (slice(0), slice(1))
    }

    /// `self + RMS(ffn; norm)`, `[E, T]`.
    pub fn ffn_residual(self, ffn: Self, norm: Self, eps: f32) -> Self {
        let [e, t, ..] = self.ne();
        self.assert_plain([e, t, 1, 1]);
        ffn.assert_plain([e, t, 1, 1]);
        norm.assert_plain([e, 1, 1, 1]);
        self.b.custom(Type::F32, [e, t, 1, 1], &[self, ffn, norm], 0, move |run| {
            // SAFETY: the shapes were checked above.
            unsafe {
                ffi::g3n_ffn_residual(
                    run.source(0),
                    run.source(1),
                    run.source(2),
                    eps,
                    long(t),
                    long(e),
                    run.out(),
                    run.ith,
                    run.nth,
                );
            }
        })
    }

    /// `gelu_t(self) ⊙ up`, `[F, T]`; rows of `up` may lie apart.
    pub fn gelu_mul(self, up: Self) -> Self {
        let [f, t, ..] = self.ne();
        self.assert_plain([f, t, 1, 1]);
        assert!(up.elements() == f * t && up.ne()[0] == f && up.ty() == Type::F32);
        // Rows lie apart where `up` is one layer's part of [P, layers, T].
        let nb = up.header().nb;
        let stride = if up.ne()[1] == t { nb[1] } else { nb[2] } / size_of::<f32>();
        self.b.custom(Type::F32, [f, t, 1, 1], &[self, up], 0, move |run| {
            // SAFETY: the shapes were checked above, the stride is the source's own.
            unsafe {
                ffi::g3n_gelu_mul(
                    run.source(0),
                    run.source(1),
                    long(stride),
                    long(f),
                    long(t),
                    run.out(),
                    run.ith,
                    run.nth,
                );
            }
        })
    }

    /// `cap·tanh(self/cap)`.
    pub fn softcap(self, cap: f32) -> Self {
        let ne = self.ne();
        self.assert_plain(ne);
        let n = self.elements();
        self.b.custom(Type::F32, ne, &[self], 0, move |run| {
            // SAFETY: source and node are contiguous and of one size.
            unsafe { ffi::g3n_softcap(run.source(0), cap, long(n), run.out(), run.ith, run.nth) };
        })
    }

    /// Gaussian top-k's cut-off of a gate `[F, T]`: mean + z·σ of each row, `[T]`.
    pub fn topk_cutoff(self, z: f32) -> Self {
        let [f, t, ..] = self.ne();
        self.assert_plain([f, t, 1, 1]);
        self.b.custom(Type::F32, [t, 1, 1, 1], &[self], 0, move |run| {
            // SAFETY: the shapes were checked above.
            unsafe {
                ffi::g3n_topk_cutoff(
                    run.source(0),
                    long(f),
                    long(t),
                    z,
                    run.out(),
                    run.ith,
                    run.nth,
                );
            }
        })
    }

    /// `gelu_t(max(self − cutoff, 0)) ⊙ up`, `[F, T]`.
    pub fn topk_gelu_mul(self, up: Self, cutoff: Self) -> Self {
        let [f, t, ..] = self.ne();
        self.assert_plain([f, t, 1, 1]);
        up.assert_plain([f, t, 1, 1]);
        cutoff.assert_plain([t, 1, 1, 1]);
        self.b.custom(Type::F32, [f, t, 1, 1], &[self, up, cutoff], 0, move |run| {
            // SAFETY: the shapes were checked above.
            unsafe {
                ffi::g3n_topk_gelu_mul(
                    run.source(0),
                    run.source(1),
                    run.source(2),
                    long(f),
                    long(t),
                    run.out(),
                    run.ith,
                    run.nth,
                );
            }
        })
    }

    /// `RoPE(RMS(self; weight))` of heads `[D, heads, T]`, tables `[D/2, 1, T]`.
    pub fn norm_rope(self, weight: Self, cos: Self, sin: Self, eps: f32) -> Self {
        let [d, heads, t, _] = self.ne();
        self.assert_plain([d, heads, t, 1]);
        weight.assert_plain([d, 1, 1, 1]);
        cos.assert_plain([d / 2, 1, t, 1]);
        sin.assert_plain([d / 2, 1, t, 1]);
        self.b.custom(Type::F32, [d, heads, t, 1], &[self, weight, cos, sin], 0, move |run| {
            // SAFETY: the shapes were checked above.
            unsafe {
                ffi::g3n_qk_norm_rope(
                    run.source(0),
                    run.source(1),
                    eps,
                    run.source(2),
                    run.source(3),
                    long(d),
                    long(heads),
                    long(t),
                    run.out(),
                    run.ith,
                    run.nth,
                );
            }
        })
    }
}
