//! LAuReL: a low-rank residual beside attention, `h + RMS(W_r · (W_l · h))`.
//!
//! The residual is the normed `h` `[E, T]`; no activation between the two products.
//! Reference: `Gemma3nTextLaurelBlock`; reference.md §3.2.

use super::scope::{Activations, Scope};
use super::weights::LayerWeights;
use crate::ggml::Tensor;

pub fn laurel<'b>(s: &Scope<'b>, w: &LayerWeights, h: &Activations<'b>) -> Tensor<'b> {
    let low = s.linear(&w.laurel_l, h); // [R, T]
    let back = s.linear(&w.laurel_r, &Activations::new(low)); // [E, T]
    let out = h.f32 + s.norm(back, &w.laurel_post_norm);
    s.tap("laurel_out", out);
    out
}
