//! LAuReL: a low-rank residual beside attention, `h + RMS(W_r · (W_l · h))`.
//!
//! The residual is the normed `h` `[E, T]`; no activation between the two products.
//! The norm and the residual are the caller's, who has a kernel for them with others.
//! Reference: `Gemma3nTextLaurelBlock`; reference.md §3.2.

use super::Scope;
use super::weights::LayerWeights;
use crate::ggml::Tensor;
use crate::model::scope::Activations;

/// `W_r · (W_l · h)`.
pub fn laurel<'b>(s: &Scope<'b>, w: &LayerWeights, h: &Activations<'b>) -> Tensor<'b> {
    let low = s.linear(&w.laurel_l, h); // [R, T]
    s.linear(&w.laurel_r, &Activations::new(low)) // [E, T]
}
