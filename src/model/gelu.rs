//! `gelu_t(x) = 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`, the tanh form, exact, of the text
//! model and the vision tower.
//!
//! ggml's own GELU reads a table of F16 values, an error of 1e-3: never used here.
//! Reference: `gelu_pytorch_tanh`, timm's `GELUTanh`; reference.md §0.2.

use crate::ggml::Tensor;

const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// The plain form: `x·(½ + ½·tanh(x·(c + 0.044715·c·x²)))`.
pub fn gelu(x: Tensor<'_>) -> Tensor<'_> {
    let inner = x.sqr().scale_bias(0.044_715 * SQRT_2_OVER_PI, SQRT_2_OVER_PI) * x;
    inner.tanh().scale_bias(0.5, 0.5) * x
}
