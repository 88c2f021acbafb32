//! The feed-forward network: `W_down · (gelu_t(gate) ⊙ up)`, in sparse layers with Gaussian top-k.
//!
//! ```text
//! g = W_gate·n    u = W_up·n                                  [F, T]
//! sparse: g ← max(g − (mean(g) + z·σ(g)), 0), σ biased, over the F values of a token
//! ```
//! Reference: `Gemma3nTextMLP`, `_gaussian_topk`; reference.md §3.5.

use super::Scope;
use super::activation::gelu_mul;
use super::weights::{Down, LayerWeights};
use crate::ggml::{Stored, Tensor, Type};
use crate::model::config::{FFN_DOWN, FFN_DOWN_T};
use crate::model::scope::Activations;

/// `n` `[E, T]` → `[E, T]`.
pub fn ffn<'b>(s: &Scope<'b>, w: &LayerWeights, il: usize, n: &Activations<'b>) -> Tensor<'b> {
    let gate = s.linear(&w.ffn_gate, n);
    s.tap("gate_raw", gate);
    let gated_up = match s.config.sparsity[il] {
        Some(z) if s.fused() => sparse(s, w, gate, n, z),
        sparsity => {
            let gate = match sparsity {
                Some(z) => gaussian_topk(s, gate, z),
                None => gate,
            };
            let up = s.linear(&w.ffn_up, n);
            s.tap("up", up);
            gelu_mul(s, gate, up)
        }
    };
    s.tap("gated_up", gated_up);
    let out = match &w.ffn_down {
        Down::Outputs(down) => s.linear(down, &Activations::new(gated_up)),
        Down::Neurons(down) => neuron_major(s, down, gated_up),
    };
    s.tap("ffn_out", out);
    out
}

/// The gate's values above the cut-off, shifted by it; the others zero.
fn gaussian_topk<'b>(s: &Scope<'b>, gate: Tensor<'b>, z: f32) -> Tensor<'b> {
    let mean = gate.mean();
    let deviation = (gate - mean).sqr().mean().sqrt();
    let sparse = (gate - (mean + deviation.scale(z))).relu();
    s.tap("gate_sparse", sparse);
    sparse
}

/// Rows of `up` only for the neurons that survive (design §5.2).
fn sparse<'b>(
    s: &Scope<'b>,
    w: &LayerWeights,
    gate: Tensor<'b>,
    n: &Activations<'b>,
    z: f32,
) -> Tensor<'b> {
    let cutoff = gate.topk_cutoff(z);
    let up = s.weight(&w.ffn_up);
    if up.has_product_kernel() {
        s.observe(&w.ffn_up, n);
        return up.sparse_gated_up(gate, cutoff, n.q8());
    }
    gate.topk_gelu_mul(s.linear(&w.ffn_up, n), cutoff)
}

/// `Σ_f gated_up_f · row_f` over the neurons that survive, for weights `[E, F]`. The plain twin
/// turns them around as f32. Observed is what the usual layout would multiply with, by its name.
fn neuron_major<'b>(s: &Scope<'b>, down: &Stored, gated_up: Tensor<'b>) -> Tensor<'b> {
    if s.observes() {
        let usual = down.name().replace(FFN_DOWN_T, FFN_DOWN);
        s.observe_as(&usual, &Activations::new(gated_up));
    }
    let down = s.weight(down);
    if s.fused() && down.has_neuron_kernel() {
        return down.neuron_product(gated_up.survivors());
    }
    let down = if down.ty() == Type::F32 { down } else { down.cast(Type::F32) };
    gated_up.mul_mat(down.permute([1, 0, 2, 3]).cont())
}
