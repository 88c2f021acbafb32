//! Per-layer embeddings: each layer gets P values a token of its own.
//!
//! ```text
//! c[t,l] = RMS((W_ctx · e0[t])/√E; w)          one w of width P for all layers
//! pli    = (c + √P·table[id])/√2               [P, layers, T]
//! gate:  p = RMS(W_proj · (gelu_t(W_gate · scaled) ⊙ pli[l]))    S_i += p for i ≥ 1
//! ```
//! Reference: `project_per_layer_inputs` and the end of `Gemma3nTextDecoderLayer.forward`;
//! reference.md §2, §3.7.

use std::ops::Range;

use super::Scope;
use super::activation::gelu_mul;
use super::altup::Corrected;
use super::weights::{LayerWeights, TextWeights};
use crate::ggml::Tensor;
use crate::model::scope::Activations;

/// The per-layer inputs `[P, layers, T]` of a range of layers, from the embeddings and the table's
/// rows (scaled by √P, `[P, layers, T]`).
pub fn inputs<'b>(
    s: &Scope<'b>,
    w: &TextWeights,
    layers: Range<usize>,
    e0: &Activations<'b>,
    rows: Tensor<'b>,
) -> Tensor<'b> {
    let c = s.config;
    let t = e0.f32.ne()[1];
    let (p, count) = (c.per_layer, layers.len());
    let weight = s.weight(&w.per_layer_model_proj).slice(1, layers.start * p, count * p);
    let context = s.linear_with(weight, e0).scale((c.embedding as f32).powf(-0.5));
    let context = s.norm(context.reshape([p, count, t, 1]), &w.per_layer_proj_norm);
    (context + rows).scale(std::f32::consts::FRAC_1_SQRT_2)
}

/// One layer's input `[P, T]` out of `[P, layers, T]`; our kernel reads it where it lies.
pub fn of_layer<'b>(s: &Scope<'b>, inputs: Tensor<'b>, index: usize) -> Tensor<'b> {
    let [p, _, t, _] = inputs.ne();
    let input = inputs.slice(1, index, 1);
    if s.fused() { input } else { input.cont().reshape([p, t, 1, 1]) }
}

/// The layer's end: what the gate lets through is added to every stream but the first. `input` is
/// this layer's `[P, T]`.
pub fn gate<'b>(
    s: &Scope<'b>,
    w: &LayerWeights,
    corrected: Corrected<'b>,
    input: Tensor<'b>,
) -> Tensor<'b> {
    let streams = corrected.streams;
    let [e, t, a, _] = streams.ne();
    let gate = s.linear(&w.inp_gate, &Activations::new(corrected.scaled));
    s.tap("ple_gate", gate);
    let gated = gelu_mul(s, gate, input);
    s.tap("ple_gated", gated);
    let projected = s.linear(&w.proj, &Activations::new(gated));
    s.tap("ple_proj", projected);
    let out = if s.fused() {
        streams.add_to_streams(projected, s.weight(&w.post_norm), s.config.eps)
    } else {
        let normed = s.norm(projected, &w.post_norm);
        s.tap("ple_out", normed);
        let first = streams.slice(2, 0, 1);
        let rest = streams.slice(2, 1, a - 1) + normed.reshape([e, t, 1, 1]);
        first.concat(rest, 2)
    };
    s.tap("out", out);
    out
}
