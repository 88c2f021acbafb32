//! A feed-forward network, before and after the other mechanisms of a block.
//!
//! ```text
//! x + w·RMS(clip(W2·silu(W1·RMS(clip(x); pre_norm))); post_norm)
//! ```
//! `w` is in the last norm's weights. Reference: `Gemma3nAudioConformerFeedForward`; reference.md
//! §9.2.

use super::weights::FeedForward;
use super::{Scope, clip};
use crate::ggml::Tensor;
use crate::model::scope::Activations;

/// `[d, T] → [d, T]`
pub fn feed_forward<'b>(s: &Scope<'b>, w: &FeedForward, x: Tensor<'b>) -> Tensor<'b> {
    let normed = Activations::new(s.norm(clip(s, x), &w.pre_norm));
    let up = w.up.linear(s, &normed);
    let active = if s.fused() { up.fused_silu() } else { up.silu() };
    let down = w.down.linear(s, &Activations::new(active));
    residual(s, x, clip(s, down), &w.post_norm)
}

/// `x + RMS(y; norm)`
pub fn residual<'b>(
    s: &Scope<'b>,
    x: Tensor<'b>,
    y: Tensor<'b>,
    norm: &crate::ggml::Stored,
) -> Tensor<'b> {
    let norm = s.weight(norm);
    if s.fused() {
        return y.norm_scale_add(Some(x), Some(norm), None, s.eps);
    }
    x + y.rms_norm(s.eps) * norm
}
