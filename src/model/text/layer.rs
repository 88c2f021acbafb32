//! A decoder layer: reading this from top to bottom is reading reference.md §3.
//!
//! ```text
//! P = predict(S)            x = P_active
//! h = RMS(x)                lau = LAuReL(h)
//! y = ((x + RMS(attention(h))) + lau)/√2
//! act = y + RMS(ffn(RMS(y)))
//! S' = correct(P, act)      S'_i += per-layer gate, i ≥ 1
//! ```
//! Reference: `Gemma3nTextDecoderLayer.forward`.

use super::Scope;
use super::altup;
use super::attention::{self, Reach, Rotation};
use super::cache::KvCache;
use super::ffn::ffn;
use super::laurel::laurel;
use super::per_layer;
use super::weights::LayerWeights;
use crate::ggml::Tensor;
use crate::model::scope::Activations;

/// What a layer needs beside the streams.
#[derive(Clone, Copy)]
pub struct Surroundings<'b, 'c> {
    /// The cache that the layer reads: its own or its source's.
    pub cache: &'c KvCache,
    pub rotation: Rotation<'b>,
    pub reach: Reach<'b>,
    /// This layer's per-layer input, `[P, T]`.
    pub input: Tensor<'b>,
}

/// The layer's first part: predictions `[E, T, A]` and the normed active one.
pub struct Opened<'b> {
    predictions: Tensor<'b>,
    h: Activations<'b>,
}

/// Predicts and norms; K and V need no more than this.
pub fn open<'b>(s: &Scope<'b>, w: &LayerWeights, streams: Tensor<'b>) -> Opened<'b> {
    opened(s, w, altup::predict(s, w, streams))
}

fn opened<'b>(s: &Scope<'b>, w: &LayerWeights, predictions: Tensor<'b>) -> Opened<'b> {
    let h = s.norm(active(s, predictions), &w.attn_norm);
    s.tap("attn_in", h);
    Opened { predictions, h: Activations::new(h) }
}

impl<'b> Opened<'b> {
    /// Writes the layer's K and V (i64 `slots` `[T]`), and returns them, `[D, K, T]` each.
    pub fn store_kv(
        &self,
        s: &Scope<'b>,
        w: &LayerWeights,
        cache: &KvCache,
        rotation: Rotation<'b>,
        slots: Tensor<'b>,
    ) -> (Tensor<'b>, Tensor<'b>) {
        attention::store_kv(s, w, cache, &self.h, rotation, slots)
    }

    /// Goes on with some of the tokens only: `rows` i32 `[R, A]`, the same indices for each stream.
    pub fn select(self, s: &Scope<'b>, w: &LayerWeights, rows: Tensor<'b>) -> Self {
        opened(s, w, self.predictions.get_rows(rows))
    }

    /// The layer's second part: the new streams `[E, T, A]`.
    pub fn close(
        self,
        s: &Scope<'b>,
        w: &LayerWeights,
        il: usize,
        around: Surroundings<'b, '_>,
    ) -> Tensor<'b> {
        let x = active(s, self.predictions);
        let lau = laurel(s, w, &self.h);
        let attn = attention::attend(s, w, around.cache, &self.h, around.rotation, around.reach);
        let (y, n) = attention_residual(s, w, x, attn, self.h.f32, lau);
        s.tap("attn_laurel", y);
        s.tap("ffn_in", n);
        let f = ffn(s, w, il, &Activations::new(n));
        let activated = ffn_residual(s, w, y, f);
        s.tap("activated", activated);

        let corrected = altup::correct(s, w, self.predictions, activated);
        per_layer::gate(s, w, corrected, around.input)
    }
}

/// `y = ((x + RMS(attn)) + (h + RMS(lau)))/√2` and its norm for the FFN, `[E, T]` each.
fn attention_residual<'b>(
    s: &Scope<'b>,
    w: &LayerWeights,
    x: Tensor<'b>,
    attn: Tensor<'b>,
    h: Tensor<'b>,
    lau: Tensor<'b>,
) -> (Tensor<'b>, Tensor<'b>) {
    if s.fused() {
        let attn = (attn, s.weight(&w.post_attention_norm));
        let lau = (lau, s.weight(&w.laurel_post_norm));
        return x.attention_residual(attn, h, lau, s.weight(&w.ffn_norm), s.config.eps);
    }
    let attn = s.norm(attn, &w.post_attention_norm);
    s.tap("attn_out_normed", attn);
    let lau = h + s.norm(lau, &w.laurel_post_norm);
    s.tap("laurel_out", lau);
    let y = (x + attn + lau).scale(std::f32::consts::FRAC_1_SQRT_2);
    (y, s.norm(y, &w.ffn_norm))
}

/// `y + RMS(f)`.
fn ffn_residual<'b>(s: &Scope<'b>, w: &LayerWeights, y: Tensor<'b>, f: Tensor<'b>) -> Tensor<'b> {
    if s.fused() {
        return y.ffn_residual(f, s.weight(&w.post_ffw_norm), s.config.eps);
    }
    let f = s.norm(f, &w.post_ffw_norm);
    s.tap("ffn_out_normed", f);
    y + f
}

/// The active stream `[E, T]` of `[E, T, A]`.
fn active<'b>(s: &Scope<'b>, streams: Tensor<'b>) -> Tensor<'b> {
    let [e, t, ..] = streams.ne();
    streams.slice(2, s.config.active, 1).reshape([e, t, 1, 1])
}
