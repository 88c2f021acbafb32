//! The antialiased bilinear resize on 8 bits, bit for bit as the reference's.
//!
//! Two passes, horizontal first, each rounded to 8 bits; an axis whose size stays is left alone.
//! For output i of `n_in → n_out`: s = n_in / n_out, fs = max(s, 1), c = s·(i + ½),
//! weights max(0, 1 − |j − c + ½| / fs) over j in [c − fs, c + fs], made to sum to 1, then
//! rounded to 16 bits at the greatest common power of two p that the axis allows:
//! `out = clamp((2^(p−1) + Σ w_j · in_j) >> p, 0, 255)`.
//!
//! Reference: `torchvision.transforms.v2.functional.resize` (antialias) of a uint8 tensor on
//! the CPU, which is torch's `_upsample_bilinear2d_aa`.

use std::borrow::Cow;

use rayon::prelude::*;

/// Red, green, blue.
const CHANNELS: usize = 3;
/// Weights are 16-bit: none may round to 2^15.
const WEIGHT_LIMIT: f64 = 32_768.0;
/// The greatest shift: leaves room for the sum in 32 bits.
const MAX_SHIFT: u32 = 22;

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub width: usize,
    pub height: usize,
}

/// Resizes RGB pixels [height, width, 3]; borrows them where the size stays.
///
/// # Panics
/// If `rgb` does not have `from`'s size, or a side of `to` is 0.
pub fn resize(rgb: &[u8], from: Size, to: Size) -> Cow<'_, [u8]> {
    assert_eq!(rgb.len(), from.width * from.height * CHANNELS, "pixels of {from:?}");
    assert!(to.width > 0 && to.height > 0, "an empty size");
    let wide = if from.width == to.width {
        Cow::Borrowed(rgb)
    } else {
        Cow::Owned(horizontal(rgb, from.width, &Axis::new(from.width, to.width)))
    };
    if from.height == to.height {
        wide
    } else {
        let stride = to.width * CHANNELS;
        Cow::Owned(vertical(&wide, stride, &Axis::new(from.height, to.height)))
    }
}

/// Where one output value comes from.
struct Window {
    /// First input position.
    start: usize,
    weights: Vec<i32>,
}

/// The weights of one axis.
struct Axis {
    windows: Vec<Window>,
    /// Bits after the binary point of the weights.
    shift: u32,
}

impl Axis {
    fn new(n_in: usize, n_out: usize) -> Self {
        let scale = n_in as f64 / n_out as f64;
        let windows: Vec<_> = (0..n_out).map(|i| exact_window(i, scale, n_in)).collect();
        let greatest = windows.iter().flat_map(|(_, weights)| weights).copied().fold(0.0, f64::max);
        let fits = |shift: u32| (0.5 + greatest * f64::from(1 << shift)).trunc() < WEIGHT_LIMIT;
        // weights are at most 1, so that 14 bits always fit
        let shift = (1..=MAX_SHIFT).take_while(|shift| fits(*shift)).count() as u32;
        let one = f64::from(1 << shift);
        let rounded =
            |weights: Vec<f64>| weights.iter().map(|w| (w * one).round() as i32).collect();
        let windows = windows
            .into_iter()
            .map(|(start, weights)| Window { start, weights: rounded(weights) })
            .collect();
        Self { windows, shift }
    }

    /// Half of the last place, where sums start.
    fn half(&self) -> i32 {
        1 << (self.shift - 1)
    }

    fn level(&self, sum: i32) -> u8 {
        (sum >> self.shift).clamp(0, 255) as u8
    }
}

/// First position and weights (they sum to 1) of output `i`.
fn exact_window(i: usize, scale: f64, n_in: usize) -> (usize, Vec<f64>) {
    let support = scale.max(1.0);
    let centre = scale * (i as f64 + 0.5);
    let start = (centre - support + 0.5).max(0.0) as usize;
    let end = ((centre + support + 0.5) as usize).min(n_in);
    let weight = |j: usize| (1.0 - ((j as f64 - centre + 0.5) * (1.0 / support)).abs()).max(0.0);
    let weights: Vec<f64> = (start..end).map(weight).collect();
    let sum: f64 = weights.iter().sum();
    (start, weights.into_iter().map(|w| w / sum).collect())
}

/// Each row of `width` pixels becomes one of as many as the axis has outputs.
fn horizontal(rgb: &[u8], width: usize, axis: &Axis) -> Vec<u8> {
    let height = rgb.len() / (width * CHANNELS);
    let stride = axis.windows.len() * CHANNELS;
    let mut out = vec![0; height * stride];
    let rows = out.par_chunks_exact_mut(stride).zip(rgb.par_chunks_exact(width * CHANNELS));
    rows.for_each(|(out, row)| {
        for (pixel, window) in out.chunks_exact_mut(CHANNELS).zip(&axis.windows) {
            let mut sums = [axis.half(); CHANNELS];
            let inputs = row[window.start * CHANNELS..].chunks_exact(CHANNELS);
            for (weight, input) in window.weights.iter().zip(inputs) {
                for (sum, level) in sums.iter_mut().zip(input) {
                    *sum += weight * i32::from(*level);
                }
            }
            for (level, sum) in pixel.iter_mut().zip(sums) {
                *level = axis.level(sum);
            }
        }
    });
    out
}

/// Rows of `stride` values become as many as the axis has outputs.
fn vertical(rgb: &[u8], stride: usize, axis: &Axis) -> Vec<u8> {
    let mut out = vec![0; axis.windows.len() * stride];
    let rows = out.par_chunks_exact_mut(stride).zip(&axis.windows);
    rows.for_each_init(
        || vec![0; stride],
        |sums: &mut Vec<i32>, (out, window)| {
            sums.fill(axis.half());
            let inputs = rgb[window.start * stride..].chunks_exact(stride);
            for (weight, row) in window.weights.iter().zip(inputs) {
                for (sum, level) in sums.iter_mut().zip(row) {
                    *sum += weight * i32::from(*level);
                }
            }
            for (level, sum) in out.iter_mut().zip(sums) {
                *level = axis.level(*sum);
            }
        },
    );
    out
}
