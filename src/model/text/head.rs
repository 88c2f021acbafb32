//! The head: `logits = cap·tanh((W · hid)/cap)`, `W` the embeddings (without their scale).
//!
//! Reference: `Gemma3nForCausalLM.forward`; reference.md §4.2.

use super::Scope;
use super::altup;
use super::weights::TextWeights;
use crate::ggml::Tensor;
use crate::model::scope::Activations;

/// Streams `[E, R, A]` → logits `[V, R]`.
pub fn head<'b>(s: &Scope<'b>, w: &TextWeights, streams: Tensor<'b>) -> Tensor<'b> {
    let hidden = s.norm(altup::merge(s, w, streams), &w.output_norm);
    s.tap("final_hidden", hidden);
    let logits = s.linear(&w.output, &Activations::new(hidden));
    match s.config.softcap {
        Some(cap) if s.fused() => logits.softcap(cap),
        Some(cap) => logits.scale(1.0 / cap).tanh().scale(cap),
        None => logits,
    }
}
