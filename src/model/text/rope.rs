//! RoPE's angles: `f32(position) · f32(θ^(−2i/D))`, as the reference computes them, in f32.
//!
//! Tables of cosines and sines are inputs of the graph: ggml's own rope multiplies its angle up
//! from dimension to dimension, which drifts from the reference at large positions.
//! Reference: `Gemma3nRotaryEmbedding`; reference.md §3.3.

/// The inverse frequencies of one kind of layer.
pub struct Frequencies(Vec<f32>);

impl Frequencies {
    /// `θ^(−2i/D)` for i < D/2.
    pub fn new(theta: f32, head_dim: usize) -> Self {
        let exponent = |i: usize| (2 * i) as f32 / head_dim as f32;
        let frequency = |i| (1.0 / f64::from(theta).powf(f64::from(exponent(i)))) as f32;
        Self((0..head_dim / 2).map(frequency).collect())
    }

    /// Cosines and sines, `[D/2, positions]`.
    pub fn tables(&self, positions: &[usize]) -> (Vec<f32>, Vec<f32>) {
        let angles = positions.iter().flat_map(|&position| {
            self.0.iter().map(move |frequency| f64::from(position as f32 * frequency))
        });
        angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_are_products_rounded_to_f32() {
        let f = Frequencies::new(10_000.0, 4);
        assert_eq!(f.0, [1.0, 0.01]);
        let (cos, sin) = f.tables(&[0, 3]);
        assert_eq!((cos[0], sin[0], cos[1], sin[1]), (1.0, 0.0, 1.0, 0.0));
        assert!((cos[2] - 3f32.cos()).abs() < 1e-7 && (sin[3] - 0.03f32.sin()).abs() < 1e-7);
    }
}
