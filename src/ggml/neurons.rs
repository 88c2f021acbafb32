//! The product with neuron-major `down` weights (design §5.2): `out[t] = Σ_f act[t, f] · row_f` over
//! the neurons whose activation is not zero. Kernel: `ggml/kernels/neurons.cpp`; the plain twin is
//! [`Tensor::mul_mat`] with the weights turned around.

use std::ffi::{c_int, c_void};

use super::builder::Tensor;
use super::types::Type;

// The contracts stand in ggml/kernels/kernels.h.
unsafe extern "C" {
    /// 32-bit numbers that the list of one token takes, of `n_ff` neurons.
    fn g3n_survivors_len(n_ff: i64) -> i64;
    /// Lists each token's neurons whose activation is not zero.
    fn g3n_survivors(
        act: *const f32,
        n_ff: i64,
        n_tokens: i64,
        lists: *mut i32,
        ith: c_int,
        nth: c_int,
    );
    /// Whether rows of `n_embd` weights of ggml's type number `ty` have the product.
    fn g3n_neurons_supports(ty: c_int, n_embd: i64) -> c_int;
    /// Scratch bytes of each thread.
    fn g3n_neurons_scratch_bytes(n_embd: i64, n_tokens: i64) -> i64;
    /// This thread's columns of the product.
    fn g3n_neurons_product(
        ty: c_int,
        w: *const c_void,
        w_stride: i64,
        n_embd: i64,
        n_ff: i64,
        lists: *const i32,
        n_tokens: i64,
        out: *mut f32,
        scratch: *mut c_void,
        ith: c_int,
        nth: c_int,
    );
}

/// Each token's surviving neurons, with their activations.
#[derive(Clone, Copy)]
pub struct Survivors<'b> {
    lists: Tensor<'b>,
    n_ff: usize,
    tokens: usize,
}

impl<'b> Tensor<'b> {
    /// The activations `[F, T]` that are not zero, as lists.
    pub fn survivors(self) -> Survivors<'b> {
        let [n_ff, tokens, n2, n3] = self.ne();
        assert!(n2 * n3 == 1 && self.ty() == Type::F32 && self.is_contiguous());
        // SAFETY: looks at its argument only.
        let len = unsafe { g3n_survivors_len(n_ff as i64) } as usize;
        let lists = self.b.custom(Type::I32, [len, tokens, 1, 1], &[self], 0, move |run| {
            let lists = run.out().cast();
            // SAFETY: F·T activations; the node has a list's length for each token.
            unsafe {
                g3n_survivors(run.source(0), n_ff as i64, tokens as i64, lists, run.ith, run.nth);
            }
        });
        Survivors { lists, n_ff, tokens }
    }

    /// Has this neuron-major weight `[E, F]` a product with survivors?
    pub fn has_neuron_kernel(self) -> bool {
        let [n_embd, _, n2, n3] = self.ne();
        // SAFETY: looks at its arguments only.
        let supported = unsafe { g3n_neurons_supports(self.ty().raw() as i32, n_embd as i64) };
        n2 * n3 == 1 && supported != 0
    }

    /// For `down` weights `[E, F]`, a row a neuron: the sum of the survivors' rows times their
    /// activations, `[E, T]`. Only those rows are read.
    pub fn neuron_product(self, x: Survivors<'b>) -> Self {
        let [n_embd, n_ff, ..] = self.ne();
        assert!(n_ff == x.n_ff && self.has_neuron_kernel(), "{:?} with {}", self.ne(), x.n_ff);
        let (ty, w_stride, tokens) = (self.ty().raw() as i32, self.header().nb[1], x.tokens);
        // SAFETY: looks at its arguments only.
        let scratch = unsafe { g3n_neurons_scratch_bytes(n_embd as i64, tokens as i64) } as usize;
        let args = [self, x.lists];
        self.b.custom(Type::F32, [n_embd, tokens, 1, 1], &args, scratch, move |run| {
            // SAFETY: F rows of E weights, T lists, E·T results; the scratch memory is as large as
            // asked for.
            unsafe {
                g3n_neurons_product(
                    ty,
                    run.source(0).cast(),
                    w_stride as i64,
                    n_embd as i64,
                    n_ff as i64,
                    run.source(1).cast(),
                    tokens as i64,
                    run.out(),
                    run.own_scratch(),
                    run.ith,
                    run.nth,
                );
            }
        })
    }
}

#[cfg(test)]
mod tests;
