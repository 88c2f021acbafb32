//! The whole tower, from features to the frames that become soft tokens: reading this is reading
//! reference.md §9.

use super::attention::attention;
use super::feed_forward::feed_forward;
use super::light_convolution::light_convolution;
use super::subsampling::subsample;
use super::weights::{AudioWeights, Block};
use super::{Scope, clip};
use crate::ggml::Tensor;
use crate::model::tower::convolution::Constants;

/// Features `[mel bins, T]` → `[d, ⌈valid/reduction⌉]`; of the subsampled frames the first `valid`
/// are the sound's own.
pub fn tower<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &AudioWeights,
    features: Tensor<'b>,
    valid: usize,
) -> Tensor<'b> {
    let mut x = subsample(s, constants, w, features).slice(1, 0, valid).cont();
    for (i, weights) in w.blocks.iter().enumerate() {
        let last = i + 1 == w.blocks.len();
        s.enter(format!("block{i}."));
        x = block(s, constants, weights, x, if last { s.config.reduction } else { 1 });
        s.tap("out", x);
        s.enter(String::new());
    }
    s.tap("encoder_out", x);
    x
}

/// A conformer block: `[d, T] → [d, ⌈T/step⌉]`.
fn block<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &Block,
    x: Tensor<'b>,
    step: usize,
) -> Tensor<'b> {
    let x = feed_forward(s, &w.start, x);
    s.tap("ffw_layer_start", x);
    let x = attention(s, constants, &w.attention, x);
    s.tap("attention", x);
    let x = light_convolution(s, constants, &w.convolution, x, step);
    s.tap("lconv1d", x);
    let x = feed_forward(s, &w.end, x);
    s.tap("ffw_layer_end", x);
    s.norm(clip(s, x), &w.norm)
}
