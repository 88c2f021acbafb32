//! Multi-query attention over a map's pixels: many query heads, one of keys and values.
//!
//! ```text
//! n = RMS(x)    q = W_q·n [d, h, W·H]    k = W_k·R(n), v = W_v·R(n) [d, W'·H']
//! P = softmax(q·kᵀ/√d)    out = x + (W_o·(P·v)) ⊙ gamma
//! ```
//! R is a depthwise 3 × 3 convolution of stride 2 with its norm, or nothing. d is the key's width,
//! not C/h. Reference: timm's `MobileAttention`, `MultiQueryAttention2d`; reference.md §7.3.

use super::convolution::depthwise;
use super::norm::{norm, norm_scale_add};
use super::weights::{Attention, Reduced};
use super::{Map, Scope};
use crate::ggml::Tensor;
use crate::model::scope::Activations;
use crate::model::tower::convolution::Constants;

pub fn attention<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &Attention,
    map: Map<'b>,
) -> Map<'b> {
    let n = norm(s, map.x, &w.norm);
    s.tap("norm", n);
    let normed = Activations::new(n);
    let query = s.linear(&w.query, &normed);
    s.tap("attn.query", query);
    let mut reduced = |w: &Reduced| match &w.down {
        None => s.linear(&w.proj, &normed),
        Some((kernel, weight)) => {
            let down = depthwise(s, constants, kernel, Map { x: n, ..map });
            s.linear(&w.proj, &Activations::new(norm(s, down.x, weight)))
        }
    };
    let (key, value) = (reduced(&w.key), reduced(&w.value));
    s.tap("attn.key", key);
    s.tap("attn.value", value);
    let attended = attend(s, query, key, value);
    let output = s.linear(&w.output, &Activations::new(attended));
    s.tap("attn.output", output);
    if s.has_taps() {
        s.tap("layer_scale", norm_scale_add(s, output, None, Some(&w.layer_scale), None));
    }
    let x = norm_scale_add(s, output, None, Some(&w.layer_scale), Some(map.x));
    Map { x, ..map }
}

/// Queries `[h·d, T]` over keys and values `[d, T']`: `[h·d, T]`. Every pixel's every head is a
/// row of two products, since all read the same keys and values.
fn attend<'b>(s: &Scope<'b>, query: Tensor<'b>, key: Tensor<'b>, value: Tensor<'b>) -> Tensor<'b> {
    let [width, tokens, ..] = query.ne();
    let [d, ..] = key.ne();
    let rows = query.reshape([d, width / d * tokens, 1, 1]);
    let scores = s.linear_with(key, &Activations::new(rows));
    let scale = 1.0 / (d as f32).sqrt();
    let weights = match s.fused() {
        true => scores.fused_soft_max(scale),
        false => scores.soft_max_rows(scale),
    };
    let columns = value.permute([1, 0, 2, 3]).cont();
    let sums = s.linear_with(columns, &Activations::new(weights));
    sums.reshape([width, tokens, 1, 1])
}
