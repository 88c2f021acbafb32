//! The universal inverted residual block.
//!
//! ```text
//! dw_start (if any) → norm      pw_exp → norm, gelu_t      dw_mid (if any) → norm, gelu_t
//! pw_proj → norm → ⊙ gamma      out = x + y where the shape stays
//! ```
//! Reference: timm's `UniversalInvertedResidual`; reference.md §7.3.

use super::convolution::depthwise;
use super::norm::{norm, norm_gelu, norm_scale_add};
use super::weights::InvertedResidual;
use super::{Map, Scope};
use crate::model::scope::Activations;
use crate::model::tower::convolution::Constants;

pub fn inverted_residual<'b>(
    s: &Scope<'b>,
    constants: &mut Constants,
    w: &InvertedResidual,
    map: Map<'b>,
) -> Map<'b> {
    let mut current = map;
    if let Some((kernel, weight)) = &w.dw_start {
        current = depthwise(s, constants, kernel, current);
        current.x = norm(s, current.x, weight);
        s.tap("dw_start", current.x);
    }
    let (expand, weight) = &w.pw_exp;
    current.x = s.linear(expand, &Activations::new(current.x));
    current.x = norm_gelu(s, current.x, weight);
    s.tap("pw_exp", current.x);
    if let Some((kernel, weight)) = &w.dw_mid {
        current = depthwise(s, constants, kernel, current);
        current.x = norm_gelu(s, current.x, weight);
        s.tap("dw_mid", current.x);
    }
    let (project, weight) = &w.pw_proj;
    let y = s.linear(project, &Activations::new(current.x));
    let gamma = w.layer_scale.as_ref();
    if s.has_taps() {
        s.tap("pw_proj", norm(s, y, weight));
        s.tap("layer_scale", norm_scale_add(s, y, Some(weight), gamma, None));
    }
    current.x = norm_scale_add(s, y, Some(weight), gamma, w.skips.then_some(map.x));
    current
}
