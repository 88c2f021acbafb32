//! The edge residual block: a full convolution up, a pointwise one down, a skip where the shape
//! stays. No layer scale.
//!
//! ```text
//! y = RMS(W_pwl · gelu_t(RMS(W_exp ∗ x; bn1)); bn2)      out = x + y
//! ```
//! Reference: timm's `EdgeResidual`; reference.md §7.3.

use super::convolution::convolution;
use super::norm::{norm_gelu, norm_scale_add};
use super::weights::EdgeResidual;
use super::{Map, Scope};
use crate::model::scope::Activations;
use crate::model::tower::convolution::Constants;

pub fn edge_residual<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &EdgeResidual,
    map: Map<'b>,
) -> Map<'b> {
    let expanded = convolution(s, constants, &w.conv_exp, map);
    s.tap("conv_exp", expanded.x);
    let x = norm_gelu(s, expanded.x, &w.bn1);
    s.tap("bn1", x);
    let x = s.linear(&w.conv_pwl, &Activations::new(x));
    s.tap("conv_pwl", x);
    if s.has_taps() {
        s.tap("bn2", norm_scale_add(s, x, Some(&w.bn2), None, None));
    }
    let x = norm_scale_add(s, x, Some(&w.bn2), None, w.skips.then_some(map.x));
    Map { x, ..expanded }
}
