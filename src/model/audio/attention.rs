//! Attention of each frame over those near it, with what nearness adds to the keys.
//!
//! ```text
//! s[t, j] = cap·tanh(q[t]·(k[j] + r(t − j)) / cap)      −future ≤ t − j ≤ past
//! r(δ) = linear_pos·[sin(δ·ι_n) …, cos(δ·ι_n) …]        ι_n = 10000^(−n / (d/2 − 1))
//! x + RMS(clip(output·Σ_j softmax(s)[j]·v[j]); post_norm)
//! ```
//! The reference computes it in chunks, which doesn't change what a frame sees.
//!
//! Reference: `Gemma3nAudioAttention`, `Gemma3nAudioRelativePositionEmbedding`; reference.md §9.3.

use rayon::prelude::*;

use super::config::AudioConfig;
use super::feed_forward::residual;
use super::weights::Attention;
use super::{Scope, clip};
use crate::ggml::{Stored, Tensor};
use crate::model::scope::Activations;
use crate::model::tower::convolution::Constants;

/// `[d, T] → [d, T]`
pub fn attention<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &Attention,
    x: Tensor<'b>,
) -> Tensor<'b> {
    let normed = Activations::new(s.norm(clip(s, x), &w.pre_norm));
    let (q, k, v) = (w.q.linear(s, &normed), w.k.linear(s, &normed), w.v.linear(s, &normed));
    let context = if s.fused() {
        let (positions, scale) = (s.weight(&w.positions), s.weight(&w.scale));
        q.local_attention(k, v, positions, scale, s.config.span())
    } else {
        plain(s, constants, w, [q, k, v])
    };
    s.tap("attn_context", context);
    let output = w.output.linear(s, &Activations::new(context));
    residual(s, x, clip(s, output), &w.post_norm)
}

/// The plain twin: all scores, those that are not seen masked.
fn plain<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &Attention,
    [q, k, v]: [Tensor<'b>; 3],
) -> Tensor<'b> {
    let [width, frames, ..] = q.ne();
    let (span, d) = (s.config.span(), s.config.head_width());
    let heads = width / d;
    let slots = span.past + frames + span.future;
    let split = |x: Tensor<'b>| {
        let [_, rows, ..] = x.ne();
        x.reshape([d, heads, rows, 1]).permute([0, 2, 1, 3]).cont()
    };
    let mut zeros = |ne: [usize; 4]| constants.values(s, ne, vec![0.0; ne.iter().product()]);
    let mut edge = |frames| (frames > 0).then(|| zeros([d, frames, heads, 1]));
    let (before, after) = (edge(span.past), edge(span.future));
    // [d, slots, heads]: slot c holds frame c − past.
    let padded = |x: Tensor<'b>| {
        let x = before.map_or(split(x), |before| before.concat(split(x), 1));
        after.map_or(x, |after| x.concat(after, 1))
    };
    let query = split((q.reshape([d, heads * frames, 1, 1]) * s.weight(&w.scale)).reshape(q.ne()));
    let content = query.mul_mat(padded(k));
    // By distance [span, T, heads]; rows one value longer than there are slots, read as rows of
    // as many, move each frame's by one more slot.
    let by_distance = query.mul_mat(split(s.weight(&w.positions)));
    let rest = zeros([slots + 1 - span.rows(), frames, heads, 1]);
    let longer = by_distance.concat(rest, 0).reshape([(slots + 1) * frames, heads, 1, 1]);
    let moved = longer.slice(0, 0, slots * frames).cont().reshape([slots, frames, heads, 1]);
    let scores = content + moved;
    s.tap("attn_logits_uncapped", scores);
    let capped = scores.scale(1.0 / span.cap).tanh().scale(span.cap);
    let mut mask = vec![f32::NEG_INFINITY; slots * frames];
    for (t, row) in mask.chunks_exact_mut(slots).enumerate() {
        let frames_seen = t.max(span.past)..(t + span.rows()).min(span.past + frames);
        row[frames_seen].fill(0.0);
    }
    let mask = constants.values(s, [slots, frames, 1, 1], mask);
    let weights = capped.soft_max(mask, 1.0);
    let values = padded(v).permute([1, 0, 2, 3]).cont();
    let context = weights.mul_mat(values);
    context.permute([0, 2, 1, 3]).cont().reshape([width, frames, 1, 1])
}

/// r(δ) for δ = past … −future: `[d, span]`.
pub fn positions(config: &AudioConfig, projection: &Stored) -> Vec<f32> {
    let (d, span) = (config.width, config.span());
    let half = d / 2;
    let step = -f64::ln(10_000.0) / (half - 1).max(1) as f64;
    let waves: Vec<f32> = (0..span.rows())
        .flat_map(|slot| {
            let distance = span.past as f64 - slot as f64;
            (0..d).map(move |i| {
                let angle = distance * (step * (i % half) as f64).exp();
                (if i < half { angle.sin() } else { angle.cos() }) as f32
            })
        })
        .collect();
    let (rows, _) = projection.bytes().as_chunks::<4>();
    let by_output: Vec<Vec<f32>> = rows
        .par_chunks(d)
        .map(|row| {
            let row: Vec<f32> = row.iter().map(|value| f32::from_ne_bytes(*value)).collect();
            waves
                .chunks_exact(d)
                .map(|wave| row.iter().zip(wave).map(|(a, b)| a * b).sum())
                .collect()
        })
        .collect();
    (0..span.rows()).flat_map(|slot| by_output.iter().map(move |row| row[slot])).collect()
}
