//! Share of dropped activations → multiplier of their standard deviation.
//!
//! multiplier = Φ⁻¹(s) = √2 · erf⁻¹(2s − 1), in f32; Φ⁻¹(0) = −∞ stands for a dense layer.
//! Published files hold what PyTorch's scalar code gives, 1.6448533535003662 for 0.95, where the
//! exact value for that f32 is 1.6448535: so its way is followed step by step, a rational start
//! and two Newton steps in f32. (PyTorch on MKL gives 1.6448536; a difference of 1.4e-7.)
//! Reference: Gemma3nTextMLP._gaussian_topk, torch.distributions.Normal.icdf.

use std::f32::consts::SQRT_2;

/// The multiplier for a share in 0..1; −∞ for 0.
pub fn multiplier(share: f32) -> f32 {
    if share <= 0.0 { f32::NEG_INFINITY } else { inverse_erf(2.0 * share - 1.0) * SQRT_2 }
}

/// A polynomial by its coefficients, highest power first.
fn polynomial(x: f32, coefficients: &[f32]) -> f32 {
    coefficients.iter().fold(0.0, |sum, c| sum * x + c)
}

/// erf⁻¹ on (−1, 1).
fn inverse_erf(y: f32) -> f32 {
    const NEWTON_STEPS: usize = 2;
    const SLOPE: f32 = std::f32::consts::FRAC_2_SQRT_PI;
    let mut x = if y.abs() <= 0.7 {
        let z = y * y;
        y * polynomial(z, &[-0.14054333, 0.91462487, -1.6453496, 0.8862269])
            / polynomial(z, &[0.012229801, -0.3290975, 1.4427105, -2.1183777, 1.0])
    } else {
        let z = (-((1.0 - y.abs()) / 2.0).ln()).sqrt();
        let start = polynomial(z, &[1.6413453, 3.4295678, -1.6249065, -1.9708405])
            / polynomial(z, &[1.6370678, 3.5438893, 1.0]);
        start.copysign(y)
    };
    for _ in 0..NEWTON_STEPS {
        x -= (libm::erff(x) - y) / (SLOPE * (-x * x).exp());
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_value_is_hit_exactly() {
        assert_eq!(f64::from(multiplier(0.95)), 1.6448533535003662);
        assert_eq!(multiplier(0.0), f32::NEG_INFINITY);
    }

    /// Against PyTorch's values (`Normal(0, 1).icdf` of an f32 tensor).
    #[test]
    fn other_shares_agree_with_the_reference() {
        for (share, expected) in
            [(0.75, 0.674_489_74), (0.9, 1.281_551_5), (0.99, 2.326_348_3), (0.999, 3.090_236_2)]
        {
            let found = multiplier(share);
            assert!((found - expected).abs() <= 4e-7 * expected, "{share}: {found}");
        }
    }
}
