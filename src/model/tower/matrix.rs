//! A tower's matrices, in the precision asked for.

use crate::ggml::{Panels, Stored, Tensor};
use crate::model::scope::{Activations, Scope};

/// A matrix `[k, m]`.
pub enum Matrix {
    /// In a type of ggml's.
    Stored(Stored),
    /// In 8 bits, packed for batches.
    Panels(Panels),
}

impl Matrix {
    /// `W·x` for each row: `[k, T] → [m, T]`.
    pub fn linear<'b, C>(&self, s: &Scope<'b, C>, x: &Activations<'b>) -> Tensor<'b> {
        match self {
            Self::Stored(stored) => s.linear(stored, x),
            Self::Panels(panels) if s.fused() => Tensor::product_panels(x.wide(), panels),
            // The twin, which only tests run on packed weights: a copy in f32.
            Self::Panels(panels) => {
                let [k, m] = panels.ne();
                let plain = Stored::from_f32([k, m, 1, 1], &panels.unpacked());
                s.linear_with(s.weight(&plain.expect("memory for a copy")), x)
            }
        }
    }
}
