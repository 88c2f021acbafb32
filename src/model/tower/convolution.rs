//! Convolutions with a window over maps, channels last: `[C, width·height]`.
//!
//! A full one is a product with the pixels under each window. The plain twins gather those pixels
//! by index, padding from one more pixel of zeros.

use crate::ggml::{Graph, Input, Stored, Tensor, Type, Window};
use crate::model::scope::{Activations, Scope};

/// What an input of a graph holds, the same in every run.
pub enum Constant {
    /// Which pixels a gather takes.
    Indices(Vec<i32>),
    Values(Vec<f32>),
}

/// Inputs that hold constants; ggml reuses their memory, so they are written before each run.
#[derive(Default)]
pub struct Constants(Vec<(Input, Constant)>);

impl Constants {
    pub fn write(&self, graph: &mut Graph) {
        for (input, constant) in &self.0 {
            match constant {
                Constant::Indices(indices) => graph.write(*input, indices),
                Constant::Values(values) => graph.write(*input, values),
            }
        }
    }

    /// An input of these values.
    pub fn values<'b, C>(
        &mut self,
        s: &Scope<'b, C>,
        ne: [usize; 4],
        values: Vec<f32>,
    ) -> Tensor<'b> {
        let (tensor, input) = s.b.input(Type::F32, ne);
        self.0.push((input, Constant::Values(values)));
        tensor
    }
}

/// `[Cin, W·H]` → `[Cout, W'·H']`.
pub fn convolution<'b, C>(
    s: &Scope<'b, C>,
    constants: &mut Constants,
    weight: &Stored,
    x: Tensor<'b>,
    window: Window,
) -> Tensor<'b> {
    let weight = s.weight(weight);
    if s.fused() && weight.has_product_kernel() {
        weight.product_q8(x.patches_q8(window))
    } else {
        let patches = if s.fused() {
            x.patches(window)
        } else {
            let gathered = gather(s, constants, x, window);
            let [channels, taps, pixels, _] = gathered.ne();
            gathered.reshape([channels * taps, pixels, 1, 1])
        };
        s.linear_with(weight, &Activations::new(patches))
    }
}

/// `[C, W·H]` → `[C, W'·H']`, each channel by itself.
pub fn depthwise<'b, C>(
    s: &Scope<'b, C>,
    constants: &mut Constants,
    weight: &Stored,
    x: Tensor<'b>,
    window: Window,
) -> Tensor<'b> {
    let weight = s.weight(weight);
    if s.fused() {
        return x.depthwise(weight, window);
    }
    let gathered = gather(s, constants, x, window);
    let [channels, taps, pixels, _] = gathered.ne();
    let weighted = gathered * weight;
    let sums = weighted.permute([1, 0, 2, 3]).cont().mean().scale(taps as f32);
    sums.reshape([channels, pixels, 1, 1])
}

/// Pixels by index: `[C, indices]`.
pub fn pixels<'b, C>(
    s: &Scope<'b, C>,
    constants: &mut Constants,
    x: Tensor<'b>,
    indices: Vec<i32>,
) -> Tensor<'b> {
    let (tensor, input) = s.b.input(Type::I32, [indices.len(), 1, 1, 1]);
    constants.0.push((input, Constant::Indices(indices)));
    x.get_rows(tensor)
}

/// The pixels under each window, tap by tap: `[C, taps, W'·H']`.
fn gather<'b, C>(
    s: &Scope<'b, C>,
    constants: &mut Constants,
    x: Tensor<'b>,
    window: Window,
) -> Tensor<'b> {
    let [channels, padding, ..] = x.ne();
    let zeros = constants.values(s, [channels, 1, 1, 1], vec![0.0; channels]);
    let (width, height) = window.out();
    let mut indices = Vec::new();
    for row in 0..height {
        for column in 0..width {
            for tap in 0..window.taps() {
                let tap = (tap % window.kernel[0], tap / window.kernel[0]);
                indices.push(window.pixel((column, row), tap).unwrap_or(padding) as i32);
            }
        }
    }
    let gathered = pixels(s, constants, x.concat(zeros, 1), indices);
    gathered.reshape([channels, window.taps(), width * height, 1])
}
