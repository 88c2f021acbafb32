//! Convolutions with a square window and "same" padding (timm's `Conv2dSame`; reference.md §7.1).

use super::weights::{Convolution, Depthwise};
use super::{Map, Scope};
use crate::ggml::{Tensor, Window};
use crate::model::tower::convolution::{self as plain, Constants};

/// `[Cin, W·H]` → `[Cout, W'·H']`.
pub fn convolution<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &Convolution,
    map: Map<'b>,
) -> Map<'b> {
    let window = Window::same([map.width, map.height], w.kernel, w.stride);
    reduced(window, plain::convolution(s, constants, &w.weight, map.x, window))
}

/// `[C, W·H]` → `[C, W'·H']`, each channel by itself.
pub fn depthwise<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &Depthwise,
    map: Map<'b>,
) -> Map<'b> {
    let window = Window::same([map.width, map.height], w.kernel, w.stride);
    reduced(window, plain::depthwise(s, constants, &w.weight, map.x, window))
}

fn reduced(window: Window, x: Tensor) -> Map {
    let (width, height) = window.out();
    Map { x, width, height }
}
