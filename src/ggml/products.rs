//! Products of quantized weights with activations in 8 bits: the C interface of
//! `ggml/kernels/product.cpp` and its neighbours (design section 5, points 2, 3, 7 and 8).
//!
//! `out[t, r] = Σ_k w[r, k] · a[t, k]`, weights `[k, m]` as the file holds them, activations
//! `[k, n]` quantized once (`g3n_q8_quantize`) and read by every product that needs them. Weights
//! in F16, BF16 and F32 meet the f32 activations as they are (`g3n_product_float`).

use std::ffi::c_void;

// The contracts stand in ggml/kernels/kernels.h. Strides of weights and activations are in bytes,
// of results in floats; rows of activations start at multiples of 64 bytes.
unsafe extern "C" {
    /// Bytes of a row of `k` activations in 8 bits: a multiple of 64.
    pub(super) fn g3n_q8_row_bytes(k: i64) -> usize;
    /// Quantizes `k` (a multiple of 32) activations.
    pub(super) fn g3n_q8_quantize(x: *const f32, k: i64, out: *mut c_void);
    /// Whether rows of `k` weights of ggml's type number `ty` have a product.
    pub(super) fn g3n_product_supports(ty: i32, k: i64) -> i32;
    /// Scratch bytes of each thread.
    pub(super) fn g3n_product_scratch_bytes(ty: i32, k: i64, n: i64) -> usize;
    /// This thread's share of `m` rows of weights with `n` rows of activations.
    pub(super) fn g3n_product(
        ty: i32,
        w: *const c_void,
        w_stride: i64,
        k: i64,
        m: i64,
        a: *const c_void,
        a_stride: i64,
        n: i64,
        out: *mut f32,
        out_stride: i64,
        scratch: *mut c_void,
        ith: i32,
        nth: i32,
    );
    /// Whether rows of `k` weights of this type (F16, BF16, F32) have an f32 product.
    pub(super) fn g3n_product_float_supports(ty: i32, k: i64) -> i32;
    /// Scratch bytes of each thread.
    pub(super) fn g3n_product_float_scratch_bytes() -> usize;
    /// As `g3n_product`, with activations in f32.
    pub(super) fn g3n_product_float(
        ty: i32,
        w: *const c_void,
        w_stride: i64,
        k: i64,
        m: i64,
        x: *const f32,
        x_stride: i64,
        n: i64,
        out: *mut f32,
        out_stride: i64,
        scratch: *mut c_void,
        ith: i32,
        nth: i32,
    );
}

#[cfg(test)]
mod tests;
