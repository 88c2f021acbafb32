//! RMS norm over a pixel's channels, with what follows it.
//!
//! `y_c = w_c·x_c / √(mean_c(x²) + 1e-6)`; then nothing, `gelu_t`, or the scale and the skip of a
//! block. Reference: timm's `RmsNorm2d`, `LayerScale2d`; reference.md §7.1.

use super::Scope;
use super::config::TOWER_EPS;
use crate::ggml::{Stored, Tensor};
use crate::model::gelu::gelu;

/// `RMS(x; w)`.
pub fn norm<'b>(s: &Scope<'b>, x: Tensor<'b>, weight: &Stored) -> Tensor<'b> {
    norm_scale_add(s, x, Some(weight), None, None)
}

/// `gelu_t(RMS(x; w))`.
pub fn norm_gelu<'b>(s: &Scope<'b>, x: Tensor<'b>, weight: &Stored) -> Tensor<'b> {
    if s.fused() {
        return x.rms_norm_gelu(s.weight(weight), TOWER_EPS);
    }
    gelu(x.rms_norm(TOWER_EPS) * s.weight(weight))
}

/// `skip + gamma·RMS(x; w)`; what is not given is left out.
pub fn norm_scale_add<'b>(
    s: &Scope<'b>,
    x: Tensor<'b>,
    weight: Option<&Stored>,
    gamma: Option<&Stored>,
    skip: Option<Tensor<'b>>,
) -> Tensor<'b> {
    let vector = |stored: Option<&Stored>| stored.map(|stored| s.weight(stored));
    let (weight, gamma) = (vector(weight), vector(gamma));
    if s.fused() {
        return x.norm_scale_add(skip, weight, gamma, TOWER_EPS);
    }
    let mut y = match weight {
        Some(weight) => x.rms_norm(TOWER_EPS) * weight,
        None => x,
    };
    if let Some(gamma) = gamma {
        y = y * gamma;
    }
    match skip {
        Some(skip) => skip + y,
        None => y,
    }
}
