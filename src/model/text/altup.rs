//! AltUp: A parallel streams of the hidden state, of which a layer computes one.
//!
//! ```text
//! router(x) = tanh(W_r · (RMS(x)/E))                                 [A]
//! predict:   P_i = S_i + Σ_j C[i][j]·S_j      C = coefs · router(S_active), c[i·A + j]
//! correct:   S'_i = P_i + b_i·(act − P_active)    b = coefs · router(act) + 1
//! ```
//! Streams are `[E, T, A]`. Reference: `Gemma3nTextAltUp.predict`, `.correct`; reference.md §3.1,
//! 3.6; the streams' beginning and end §2.5 and §4.1.

use super::Scope;
use super::weights::{LayerWeights, TextWeights};
use crate::ggml::{Stored, Tensor};
use crate::model::scope::Activations;

/// The floor under a projected stream's mean square; hard-wired in the reference.
const MAGNITUDE_FLOOR: f32 = 1e-5;

/// The A streams that enter the first layer, from the embeddings `[E, T]`.
pub fn init<'b>(s: &Scope<'b>, w: &TextWeights, e0: Tensor<'b>) -> Tensor<'b> {
    let [e, t, ..] = e0.ne();
    let x = Activations::new(e0);
    let target = magnitude(e0);
    let mut streams = e0.reshape([e, t, 1, 1]);
    for j in 0..s.config.streams - 1 {
        let projection = s.weight(&w.altup_proj).slice(2, j, 1);
        let y = rescale(s.linear_with(projection, &x), target);
        streams = streams.concat(y.reshape([e, t, 1, 1]), 2);
    }
    s.tap("altup_init", streams);
    streams
}

/// The streams' mean after the last layer, every stream brought to the first one's magnitude:
/// `[E, T, A] → [E, T]`.
pub fn merge<'b>(s: &Scope<'b>, w: &TextWeights, streams: Tensor<'b>) -> Tensor<'b> {
    let [e, t, a, _] = streams.ne();
    let first = streams.slice(2, 0, 1).reshape([e, t, 1, 1]);
    let target = magnitude(first);
    let mut sum = first;
    for j in 0..a - 1 {
        let projection = s.weight(&w.altup_unembd_proj).slice(2, j, 1);
        let stream = streams.slice(2, j + 1, 1).reshape([e, t, 1, 1]);
        let y = s.linear_with(projection, &Activations::new(stream));
        sum = sum + rescale(y, target);
    }
    let mean = sum.scale(1.0 / a as f32);
    s.tap("pre_final_norm", mean);
    mean
}

/// `sqrt(mean x²)` of each row: `[1, T]`; no floor.
fn magnitude(x: Tensor<'_>) -> Tensor<'_> {
    x.sqr().mean().sqrt()
}

/// `y · target / sqrt(max(mean y², floor))`.
fn rescale<'b>(y: Tensor<'b>, target: Tensor<'b>) -> Tensor<'b> {
    let own = y.sqr().mean().at_least(MAGNITUDE_FLOOR).sqrt();
    y * (target / own)
}

/// `router(x)`: `[E, T] → [A, T]`.
fn router<'b>(s: &Scope<'b>, w: &LayerWeights, x: Tensor<'b>) -> Tensor<'b> {
    let scaled = s.norm(x, &w.altup_router_norm).scale(1.0 / s.config.embedding as f32);
    s.observe(&w.altup_router, &Activations::new(scaled));
    scaled.mul_mat(s.weight(&w.altup_router)).tanh()
}

/// Observes what only the kernels compute: the router's inputs for `x` `[E, T]`, and its outputs,
/// which are the coefficients' inputs.
fn observe_router<'b>(s: &Scope<'b>, w: &LayerWeights, coefs: &Stored, x: Tensor<'b>) {
    if s.observes() {
        s.observe(coefs, &Activations::new(router(s, w, x)));
    }
}

/// The predictions `[E, T, A]` from the streams `[E, T, A]`.
pub fn predict<'b>(s: &Scope<'b>, w: &LayerWeights, streams: Tensor<'b>) -> Tensor<'b> {
    let [e, t, a, _] = streams.ne();
    let active = streams.slice(2, s.config.active, 1).reshape([e, t, 1, 1]);
    let predictions = if s.fused() {
        observe_router(s, w, &w.altup_predict_coef, active);
        streams.altup_predict(
            s.weight(&w.altup_router_norm),
            s.weight(&w.altup_router),
            s.weight(&w.altup_predict_coef),
            s.config.active,
            s.config.eps,
        )
    } else {
        let modalities = router(s, w, active);
        s.tap("modalities_predict", modalities);
        s.observe(&w.altup_predict_coef, &Activations::new(modalities));
        let coefs = modalities.mul_mat(s.weight(&w.altup_predict_coef)).reshape([a, a, t, 1]);
        // Σ_j C[i][j]·S_j as one small product a token: [A, E, T] · [A, A, T] → [E, A, T]
        let by_stream = streams.permute([2, 0, 1, 3]).cont();
        let mixed = coefs.mul_mat(by_stream);
        mixed.permute([0, 2, 1, 3]).cont() + streams
    };
    s.tap("predictions", predictions);
    predictions
}

/// What `correct` leaves.
pub struct Corrected<'b> {
    /// `[E, T, A]`
    pub streams: Tensor<'b>,
    /// `[E, T]`: the active stream, scaled, for the per-layer gate; the stream itself is not.
    pub scaled: Tensor<'b>,
}

/// The corrected streams from the predictions and the layer's result `[E, T]`.
pub fn correct<'b>(
    s: &Scope<'b>,
    w: &LayerWeights,
    predictions: Tensor<'b>,
    activated: Tensor<'b>,
) -> Corrected<'b> {
    let [e, t, a, _] = predictions.ne();
    let (streams, scaled) = if s.fused() {
        observe_router(s, w, &w.altup_correct_coef, activated);
        predictions.altup_correct(
            activated,
            s.weight(&w.altup_router_norm),
            s.weight(&w.altup_router),
            s.weight(&w.altup_correct_coef),
            s.weight(&w.altup_correct_scale),
            (s.config.active, s.config.eps),
        )
    } else {
        let modalities = router(s, w, activated);
        s.tap("modalities_correct", modalities);
        s.observe(&w.altup_correct_coef, &Activations::new(modalities));
        let coefs = modalities.mul_mat(s.weight(&w.altup_correct_coef)).scale_bias(1.0, 1.0);
        let active = predictions.slice(2, s.config.active, 1).reshape([e, t, 1, 1]);
        let innovation = activated - active;
        // b_i · innovation, an outer product a token: [1, E, T] · [1, A, T] → [E, A, T]
        let outer = coefs.reshape([1, a, t, 1]).mul_mat(innovation.reshape([1, e, t, 1]));
        let streams = outer.permute([0, 2, 1, 3]).cont() + predictions;
        let active = streams.slice(2, s.config.active, 1).reshape([e, t, 1, 1]);
        (streams, active * s.weight(&w.altup_correct_scale))
    };
    s.tap("corrected", streams);
    s.tap("corrected_scaled", scaled);
    Corrected { streams, scaled }
}
