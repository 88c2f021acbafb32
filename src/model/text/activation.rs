//! `gelu_t(x) = 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`, the tanh form, exact.
//!
//! ggml's own GELU reads a table of F16 values, an error of 1e-3: never used here.
//! Reference: `hidden_activation` = `gelu_pytorch_tanh`; reference.md §0.2.

use super::scope::Scope;
use crate::ggml::Tensor;

const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// `gelu_t(gate) ⊙ up`.
pub fn gelu_mul<'b>(s: &Scope<'b>, gate: Tensor<'b>, up: Tensor<'b>) -> Tensor<'b> {
    if s.fused() {
        return gate.gelu_mul(up);
    }
    gelu(gate) * up
}

/// The plain form: `x·(½ + ½·tanh(x·(c + 0.044715·c·x²)))`.
fn gelu(x: Tensor<'_>) -> Tensor<'_> {
    let inner = x.sqr().scale_bias(0.044_715 * SQRT_2_OVER_PI, SQRT_2_OVER_PI) * x;
    inner.tanh().scale_bias(0.5, 0.5) * x
}
