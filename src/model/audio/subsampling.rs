//! Two convolutions over frames and mel bins, each followed by a cumulative group norm and relu,
//! then a projection: a quarter of the frames, `[mel bins, T] → [d, T']`.
//!
//! ```text
//! y[t] = relu((x[t] − μ[t]) / √(σ²[t] + eps) · w)     μ[t] = mean of x[..=t]
//!                                                    σ²[t] = mean over s ≤ t of (x[s] − μ[s])²
//! ```
//! The mean runs over all channels and bins, and over padding as over frames. A convolution looks
//! ahead: zeros stand after the last frame only, and on either side of the bins.
//!
//! Reference: `Gemma3nAudioSubSampleConvProjection`, `Gemma3nAudioCumulativeGroupNorm`;
//! reference.md §9.1.

use super::Scope;
use super::weights::{AudioWeights, Subsampling};
use crate::ggml::{Tensor, Window};
use crate::model::scope::Activations;
use crate::model::tower::convolution::{Constants, convolution};

/// Features `[mel bins, T]` → `[d, T']`.
pub fn subsample<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &AudioWeights,
    features: Tensor<'b>,
) -> Tensor<'b> {
    let [bins, frames, ..] = features.ne();
    let mut map = features.reshape([1, bins * frames, 1, 1]);
    let mut size = [bins, frames];
    for (i, (conv, [down, across])) in w.subsampling.iter().zip(s.config.strides).enumerate() {
        let window = Window {
            map: size,
            kernel: conv.kernel,
            stride: [across, down],
            before: [1, 0],
            after: [1, conv.kernel[1] - 1],
        };
        let x = convolution(s, constants, &conv.weight, map, window);
        size = window.out().into();
        map = norm_relu(s, constants, conv, x, size);
        s.tap(&format!("conv_{i}"), map);
    }
    // A frame's row has the bins outside, the channels inside.
    let [channels, ..] = map.ne();
    let rows = map.reshape([channels * size[0], size[1], 1, 1]);
    let x = w.input_projection.linear(s, &Activations::new(rows));
    s.tap("subsample", x);
    x
}

/// Frames that come of `frames`.
pub fn subsampled(w: &AudioWeights, strides: [[usize; 2]; 2], frames: usize) -> usize {
    let after = |frames: usize, (_, [down, _]): (&Subsampling, [usize; 2])| {
        frames.checked_sub(1).map_or(0, |rest| rest / down + 1)
    };
    w.subsampling.iter().zip(strides).fold(frames, after)
}

/// The norm over a map `[C, bins·frames]`, and relu.
fn norm_relu<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &Subsampling,
    x: Tensor<'b>,
    [bins, frames]: [usize; 2],
) -> Tensor<'b> {
    let [channels, ..] = x.ne();
    let (width, eps) = (channels * bins, s.config.group_norm_eps);
    let rows = x.reshape([width, frames, 1, 1]);
    let weight = s.weight(&w.norm);
    if s.fused() {
        let y = rows.cumulative_norm_relu(weight, eps);
        return y.reshape([channels, bins * frames, 1, 1]);
    }
    // Row t of this averages the values up to t: [T, T] · [T, 1].
    let mut running = vec![0.0; frames * frames];
    for (t, row) in running.chunks_exact_mut(frames).enumerate() {
        row[..=t].fill(1.0 / (t + 1) as f32);
    }
    let running = constants.values(s, [frames, frames, 1, 1], running);
    let average = |x: Tensor<'b>| {
        let by_frame = x.mean().reshape([frames, 1, 1, 1]);
        by_frame.mul_mat(running).reshape([1, frames, 1, 1])
    };
    let away = rows - average(rows);
    let deviation = average(away.sqr()).scale_bias(1.0, eps).sqrt();
    let y = (away / deviation).reshape([channels, bins * frames, 1, 1]);
    (y * weight).relu()
}
