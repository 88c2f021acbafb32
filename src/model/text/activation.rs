//! The gated activation: `gelu_t(gate) ⊙ up`.
//!
//! Reference: `hidden_activation` = `gelu_pytorch_tanh`; reference.md §0.2.

use super::Scope;
use crate::ggml::Tensor;
use crate::model::gelu::gelu;

/// `gelu_t(gate) ⊙ up`.
pub fn gelu_mul<'b>(s: &Scope<'b>, gate: Tensor<'b>, up: Tensor<'b>) -> Tensor<'b> {
    if s.fused() {
        return gate.gelu_mul(up);
    }
    gelu(gate) * up
}
