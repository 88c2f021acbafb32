//! The C interface of the fused kernels: passes over activations that a graph of plain operations
//! would make one by one, and on one thread when there is one token.
//!
//! Shapes, aliasing and formulas are in `ggml/kernels/kernels.h` and at the head of each kernel's
//! file. Every function is called by all `nth` threads with its own `ith`.

use std::ffi::{c_int, c_void};

/// The most streams AltUp may have (`G3N_MAX_STREAMS`).
pub(super) const MAX_STREAMS: usize = 16;

unsafe extern "C" {
    pub(super) fn g3n_altup_predict(
        streams: *const f32,
        n_tokens: i64,
        n_embd: i64,
        n_streams: c_int,
        active: c_int,
        router_norm: *const f32,
        router: *const f32,
        coefs: *const f32,
        eps: f32,
        pred: *mut f32,
        ith: c_int,
        nth: c_int,
    );
    pub(super) fn g3n_altup_correct(
        pred: *const f32,
        act: *const f32,
        n_tokens: i64,
        n_embd: i64,
        n_streams: c_int,
        active: c_int,
        router_norm: *const f32,
        router: *const f32,
        coefs: *const f32,
        scale: *const f32,
        eps: f32,
        out: *mut f32,
        scaled: *mut f32,
        ith: c_int,
        nth: c_int,
    );
    pub(super) fn g3n_add_to_streams(
        streams: *mut f32,
        row: *const f32,
        norm: *const f32,
        eps: f32,
        n_tokens: i64,
        n_embd: i64,
        n_streams: c_int,
        ith: c_int,
        nth: c_int,
    );
    pub(super) fn g3n_rms_norm(
        x: *const f32,
        x_stride: i64,
        w: *const f32,
        eps: f32,
        n_embd: i64,
        rows: i64,
        out: *mut f32,
        out_stride: i64,
        ith: c_int,
        nth: c_int,
    );
    pub(super) fn g3n_residual(
        x: *const f32,
        attn: *const f32,
        attn_norm: *const f32,
        h: *const f32,
        laurel: *const f32,
        laurel_norm: *const f32,
        ffn_norm: *const f32,
        eps: f32,
        n_tokens: i64,
        n_embd: i64,
        y: *mut f32,
        n: *mut f32,
        ith: c_int,
        nth: c_int,
    );
    pub(super) fn g3n_ffn_residual(
        y: *const f32,
        ffn: *const f32,
        norm: *const f32,
        eps: f32,
        n_tokens: i64,
        n_embd: i64,
        act: *mut f32,
        ith: c_int,
        nth: c_int,
    );
    pub(super) fn g3n_gelu_mul(
        g: *const f32,
        u: *const f32,
        u_stride: i64,
        width: i64,
        rows: i64,
        out: *mut f32,
        ith: c_int,
        nth: c_int,
    );
    pub(super) fn g3n_softcap(
        x: *const f32,
        cap: f32,
        n: i64,
        out: *mut f32,
        ith: c_int,
        nth: c_int,
    );
    pub(super) fn g3n_soft_max(
        x: *const f32,
        scale: f32,
        width: i64,
        rows: i64,
        out: *mut f32,
        ith: c_int,
        nth: c_int,
    );
    pub(super) fn g3n_topk_cutoff(
        gate: *const f32,
        n_ff: i64,
        n_tokens: i64,
        z: f32,
        cutoff: *mut f32,
        ith: c_int,
        nth: c_int,
    );
    pub(super) fn g3n_topk_gelu_mul(
        gate: *const f32,
        up: *const f32,
        cutoff: *const f32,
        n_ff: i64,
        n_tokens: i64,
        out: *mut f32,
        ith: c_int,
        nth: c_int,
    );
    pub(super) fn g3n_sparse_scratch_bytes(n_ff: i64, n_tokens: i64) -> i64;
    pub(super) fn g3n_sparse_gated_up(
        ty: c_int,
        w: *const c_void,
        w_stride: i64,
        k: i64,
        n_ff: i64,
        gate: *const f32,
        cutoff: *const f32,
        a: *const c_void,
        a_stride: i64,
        n_tokens: i64,
        out: *mut f32,
        scratch: *mut c_void,
        ith: c_int,
        nth: c_int,
    );
    pub(super) fn g3n_qk_norm_rope(
        x: *const f32,
        w: *const f32,
        eps: f32,
        cosines: *const f32,
        sines: *const f32,
        head_dim: i64,
        n_heads: i64,
        n_tokens: i64,
        out: *mut f32,
        ith: c_int,
        nth: c_int,
    );
    pub(super) fn g3n_attention_scratch_bytes(head_dim: i64) -> i64;
    pub(super) fn g3n_attention(
        q: *const f32,
        ty: c_int,
        k: *const c_void,
        v: *const c_void,
        kv_stride: i64,
        mask: *const u16,
        mask_stride: i64,
        n_slots: i64,
        head_dim: i64,
        n_heads: i64,
        n_kv_heads: i64,
        n_tokens: i64,
        out: *mut f32,
        scratch: *mut c_void,
        ith: c_int,
        nth: c_int,
    );
}

#[cfg(test)]
mod tests;
