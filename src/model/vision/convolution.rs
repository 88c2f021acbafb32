//! Convolutions with a window, "same" padding (timm's `Conv2dSame`; reference.md §7.1).
//!
//! A full one is a product with the pixels under each window. The plain twins gather those pixels
//! by index, padding from one more pixel of zeros.

use super::weights::{Convolution, Depthwise};
use super::{Map, Scope};
use crate::ggml::{Input, Tensor, Type, Window};
use crate::model::scope::Activations;

/// What an input of the plain twins holds, the same in every run.
pub enum Constant {
    /// Which pixels a gather takes.
    Indices(Vec<i32>),
    /// Zeros, so many.
    Zeros(usize),
}

/// Inputs that hold constants; ggml reuses their memory, so they are written before each run.
pub type Constants = Vec<(Input, Constant)>;

/// `[Cin, W·H]` → `[Cout, W'·H']`.
pub fn convolution<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &Convolution,
    map: Map<'b>,
) -> Map<'b> {
    let window = window(map, w.kernel, w.stride);
    let weight = s.weight(&w.weight);
    let x = if s.fused() && weight.has_product_kernel() {
        weight.product_q8(map.x.patches_q8(window))
    } else {
        let patches = if s.fused() {
            map.x.patches(window)
        } else {
            let gathered = gather(s, constants, map, window);
            let [channels, taps, pixels, _] = gathered.ne();
            gathered.reshape([channels * taps, pixels, 1, 1])
        };
        s.linear_with(weight, &Activations::new(patches))
    };
    reduced(window, x)
}

/// `[C, W·H]` → `[C, W'·H']`, each channel by itself.
pub fn depthwise<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &Depthwise,
    map: Map<'b>,
) -> Map<'b> {
    let window = window(map, w.kernel, w.stride);
    let weight = s.weight(&w.weight);
    if s.fused() {
        return reduced(window, map.x.depthwise(weight, window));
    }
    let gathered = gather(s, constants, map, window);
    let [channels, taps, pixels, _] = gathered.ne();
    let weighted = gathered * weight;
    let sums = weighted.permute([1, 0, 2, 3]).cont().mean().scale(taps as f32);
    reduced(window, sums.reshape([channels, pixels, 1, 1]))
}

/// Pixels by index: `[C, indices]`.
pub fn pixels<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    x: Tensor<'b>,
    indices: Vec<i32>,
) -> Tensor<'b> {
    let (tensor, input) = s.b.input(Type::I32, [indices.len(), 1, 1, 1]);
    constants.push((input, Constant::Indices(indices)));
    x.get_rows(tensor)
}

/// The pixels under each window, tap by tap: `[C, k², W'·H']`.
fn gather<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    map: Map<'b>,
    window: Window,
) -> Tensor<'b> {
    let [channels, padding, ..] = map.x.ne();
    let (zeros, input) = s.b.input(Type::F32, [channels, 1, 1, 1]);
    constants.push((input, Constant::Zeros(channels)));
    let (width, height) = window.out();
    let mut indices = Vec::new();
    for y in 0..height {
        for x in 0..width {
            for tap in 0..window.kernel * window.kernel {
                let tap = (tap % window.kernel, tap / window.kernel);
                indices.push(window.pixel((x, y), tap).unwrap_or(padding) as i32);
            }
        }
    }
    let gathered = pixels(s, constants, map.x.concat(zeros, 1), indices);
    gathered.reshape([channels, window.kernel * window.kernel, width * height, 1])
}

fn window(map: Map, kernel: usize, stride: usize) -> Window {
    Window { width: map.width, height: map.height, kernel, stride }
}

fn reduced(window: Window, x: Tensor) -> Map {
    let (width, height) = window.out();
    Map { x, width, height }
}
