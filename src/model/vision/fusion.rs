//! The multi-scale fusion adapter over the last two stages.
//!
//! ```text
//! x = [fine; nearest(coarse)]  →  inverted residual, no skip, no scale  →  mean of g × g windows
//! out = RMS(x)
//! ```
//! The norm comes after the pooling. Reference: timm's `MobileNetV5MultiScaleFusionAdapter`;
//! reference.md §7.5.

use super::inverted_residual::inverted_residual;
use super::norm::norm;
use super::weights::Fusion;
use super::{Map, Scope};
use crate::ggml::Tensor;
use crate::model::tower::convolution::{Constants, pixels};

/// `[C, grid²]`.
pub fn fuse<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &Fusion,
    fine: Map<'b>,
    coarse: Map<'b>,
) -> Tensor<'b> {
    let mut nearest = Vec::with_capacity(fine.width * fine.height);
    for y in 0..fine.height {
        for x in 0..fine.width {
            let row = y * coarse.height / fine.height;
            let column = x * coarse.width / fine.width;
            nearest.push((row * coarse.width + column) as i32);
        }
    }
    let coarse = pixels(s, constants, coarse.x, nearest);
    let both = Map { x: fine.x.concat(coarse, 0), ..fine };
    let mixed = inverted_residual(s, constants, &w.ffn, both);
    s.tap("ffn", mixed.x);
    norm(s, pool(s, constants, mixed, s.config.grid), &w.norm)
}

/// The mean of each of `grid × grid` windows.
fn pool<'b>(s: &Scope<'b>, constants: &mut Constants, map: Map<'b>, grid: usize) -> Tensor<'b> {
    let (across, down) = (map.width / grid, map.height / grid);
    let mut sum: Option<Tensor> = None;
    for tap in 0..across * down {
        let (dx, dy) = (tap % across, tap / across);
        let pixel = |i: usize| (i / grid * down + dy) * map.width + i % grid * across + dx;
        let indices = (0..grid * grid).map(|i| pixel(i) as i32).collect();
        let taken = pixels(s, constants, map.x, indices);
        sum = Some(sum.map_or(taken, |sum| sum + taken));
    }
    sum.unwrap_or(map.x).scale(1.0 / (across * down) as f32)
}
