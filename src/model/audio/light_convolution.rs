//! The light convolution of a block: gated, each column by itself over a few frames.
//!
//! ```text
//! y = glu(start·RMS(x; pre_norm))       z[t] = Σ_i w[i] ⊙ y[t − (K−1) + i]
//! x + end·silu(RMS(clip(z); norm))
//! ```
//! Of the last block's frames only those that become soft tokens are needed from here on: `step`.
//!
//! Reference: `Gemma3nAudioConformerLightConv1d`; reference.md §9.2.

use super::weights::LightConvolution;
use super::{Scope, clip};
use crate::ggml::Tensor;
use crate::model::scope::Activations;
use crate::model::tower::convolution::Constants;

/// `[d, T] → [d, ⌈T/step⌉]`
pub fn light_convolution<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &LightConvolution,
    x: Tensor<'b>,
    step: usize,
) -> Tensor<'b> {
    let eps = s.config.eps;
    let pre_norm = s.weight(&w.pre_norm);
    let normed = match s.fused() {
        true => x.rms_norm_weighted(pre_norm, eps),
        false => x.rms_norm(eps) * pre_norm,
    };
    let both = w.start.linear(s, &Activations::new(normed));
    let (depthwise, norm) = (s.weight(&w.depthwise), s.weight(&w.norm));
    let active = if s.fused() {
        let bound = s.config.bound().unwrap_or(f32::INFINITY);
        both.glu().light_convolution(depthwise, norm, (eps, bound), step)
    } else {
        let [width, frames, ..] = x.ne();
        let gate = both.slice(0, width, width).cont().sigmoid();
        let y = both.slice(0, 0, width).cont() * gate;
        let [_, taps, ..] = depthwise.ne();
        let before = constants.values(s, [width, taps, 1, 1], vec![0.0; width * taps]);
        let padded = before.concat(y, 1);
        let tap = |i: usize| padded.slice(1, i + 1, frames) * depthwise.slice(1, i, 1);
        let sum = (1..taps).fold(tap(0), |sum, i| sum + tap(i));
        every(clip(s, sum).rms_norm(eps) * norm, step).silu()
    };
    every(x, step) + w.end.linear(s, &Activations::new(active))
}

/// Rows 0, step, 2·step …
pub fn every(x: Tensor, step: usize) -> Tensor {
    match step {
        1 => x,
        _ => x.every_row(step).cont(),
    }
}
