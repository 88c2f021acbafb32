//! Attention: grouped queries over a cache, norms on q, k and v, scale 1.
//!
//! ```text
//! q = RoPE(RMS(W_q·h; q_norm))   k = RoPE(RMS(W_k·h; k_norm))   v = RMS(W_v·h)   heads of D
//! o = softmax(q·kᵀ + mask)·v     query head n reads KV head n / (H/K)
//! ```
//! Layers that share compute q alone and read the cache of their source. RoPE is the half-split
//! form; its angles are `f32(position)·f32(frequency)` as the reference has them, given as tables.
//! Reference: `Gemma3nTextAttention`; reference.md §3.3.

use super::Scope;
use super::cache::KvCache;
use super::weights::LayerWeights;
use crate::ggml::{Tensor, Type};
use crate::model::scope::Activations;

/// RoPE's tables for the positions of a batch: `[D/2, 1, T]`.
#[derive(Clone, Copy)]
pub struct Rotation<'b> {
    pub cos: Tensor<'b>,
    pub sin: Tensor<'b>,
}

/// What queries of a kind of layer attend to.
#[derive(Clone, Copy)]
pub struct Reach<'b> {
    /// f16 `[slots, queries]`: 0 or −∞.
    pub mask: Tensor<'b>,
    /// Slots of the cache that are looked at, from the first.
    pub slots: usize,
}

/// Computes K and V of a layer and writes them into its cache at `slots` (i64 `[T]`);
/// returns both, `[D, K, T]`.
pub fn store_kv<'b>(
    s: &Scope<'b>,
    w: &LayerWeights,
    cache: &KvCache,
    h: &Activations<'b>,
    rotation: Rotation<'b>,
    slots: Tensor<'b>,
) -> (Tensor<'b>, Tensor<'b>) {
    let kv = w.kv.as_ref().expect("a layer that owns K/V has their weights");
    let (d, heads, t) = (s.config.head_dim, s.config.kv_heads, h.f32.ne()[1]);
    let k = s.linear(&kv.k, h).reshape([d, heads, t, 1]);
    let k = rotated(s, k, s.weight(&kv.k_norm), rotation);
    let v = s.linear(&kv.v, h).reshape([d, heads, t, 1]).rms_norm(s.config.eps);
    for (stored, rows) in [(&cache.k, k), (&cache.v, v)] {
        s.b.run(s.weight(stored).set_rows(rows.reshape([d * heads, t, 1, 1]), slots));
    }
    (k, v)
}

/// Attention's output before the norm that follows: `[E, T]`.
pub fn attend<'b>(
    s: &Scope<'b>,
    w: &LayerWeights,
    cache: &KvCache,
    h: &Activations<'b>,
    rotation: Rotation<'b>,
    reach: Reach<'b>,
) -> Tensor<'b> {
    let (d, heads, t) = (s.config.head_dim, s.config.heads, h.f32.ne()[1]);
    let q = s.linear(&w.attn_q, h).reshape([d, heads, t, 1]);
    let q = rotated(s, q, s.weight(&w.attn_q_norm), rotation);
    s.tap("q", q);
    let keys = s.weight(&cache.k).slice(1, 0, reach.slots);
    let values = s.weight(&cache.v).slice(1, 0, reach.slots);
    let context = mix(s, q, keys, values, reach.mask); // [D, H, T]
    let context = context.reshape([d * heads, t, 1, 1]);
    s.tap("attn_context", context);
    let out = s.linear(&w.attn_output, &Activations::new(context));
    s.tap("attn_out", out);
    out
}

/// `softmax(q·kᵀ + mask)·v`: q `[D, H, T]`, k and v `[D·K, slots]` → `[D, H, T]`.
fn mix<'b>(
    s: &Scope<'b>,
    q: Tensor<'b>,
    k: Tensor<'b>,
    v: Tensor<'b>,
    mask: Tensor<'b>,
) -> Tensor<'b> {
    let scores_wanted = s.has_taps() && k.ty() == Type::F32;
    if s.fused() && !scores_wanted {
        return q.attention(k, v, mask);
    }
    let (d, heads, slots) = (s.config.head_dim, s.config.kv_heads, k.ne()[1]);
    let by_head = |x: Tensor<'b>| x.reshape([d, heads, slots, 1]).permute([0, 2, 1, 3]);
    let (q, k, v) = (q.permute([0, 2, 1, 3]), by_head(k), by_head(v));
    if k.ty() == Type::F32 {
        return explicit(s, q, k, v, mask);
    }
    q.flash_attention(k, v, mask, 1.0)
}

/// Attention with scores that exist as a tensor: for the f32 cache, where all is f32.
fn explicit<'b>(
    s: &Scope<'b>,
    q: Tensor<'b>,
    k: Tensor<'b>,
    v: Tensor<'b>,
    mask: Tensor<'b>,
) -> Tensor<'b> {
    let scores = q.mul_mat(k); // [slots, T, H]
    let probs = scores.soft_max(mask, 1.0);
    s.tap("attn_probs", probs.permute([0, 2, 1, 3]));
    let by_slot = v.permute([1, 0, 2, 3]).cont(); // [slots, D, K]
    probs.mul_mat(by_slot).permute([0, 2, 1, 3]).cont() // [D, H, T]
}

/// `RoPE(RMS(x; w))` of heads `[D, heads, T]`.
fn rotated<'b>(
    s: &Scope<'b>,
    x: Tensor<'b>,
    weight: Tensor<'b>,
    rotation: Rotation<'b>,
) -> Tensor<'b> {
    if s.fused() {
        return x.norm_rope(weight, rotation.cos, rotation.sin, s.config.eps);
    }
    let x = x.rms_norm(s.config.eps) * weight;
    let half = x.ne()[0] / 2;
    let (low, high) = (x.slice(0, 0, half), x.slice(0, half, half));
    let first = low * rotation.cos - high * rotation.sin;
    let second = high * rotation.cos + low * rotation.sin;
    first.concat(second, 0)
}
