//! Any decoded picture to 8-bit RGB over white.
//!
//! - grey g → (g, g, g)
//! - 16 bits → the high byte, before anything else
//! - alpha a → round((c·a + 255·(255 − a)) / 255) for each colour c
//!
//! Reference: PIL's unpackers take the high byte; transformers' `convert_to_rgb` composites.

use image::DynamicImage;

/// [height, width, 3]; `None` for floating-point samples.
pub(super) fn over_white(picture: DynamicImage) -> Option<Vec<u8>> {
    Some(match picture {
        DynamicImage::ImageRgb8(rgb) => rgb.into_raw(),
        DynamicImage::ImageRgba8(rgba) => composited::<4>(rgba.into_raw()),
        DynamicImage::ImageLuma8(grey) => tripled(&grey),
        DynamicImage::ImageLumaA8(grey) => tripled(&composited::<2>(grey.into_raw())),
        DynamicImage::ImageRgb16(rgb) => high_bytes(&rgb),
        DynamicImage::ImageRgba16(rgba) => composited::<4>(high_bytes(&rgba)),
        DynamicImage::ImageLuma16(grey) => tripled(&high_bytes(&grey)),
        DynamicImage::ImageLumaA16(grey) => tripled(&composited::<2>(high_bytes(&grey))),
        _ => return None,
    })
}

/// One colour level seen through `alpha` over white.
fn blend(level: u8, alpha: u8) -> u8 {
    let (level, alpha) = (u32::from(level), u32::from(alpha));
    ((level * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// Pixels of N samples, alpha last, to N − 1 over white; in place, since pictures are large.
fn composited<const N: usize>(mut samples: Vec<u8>) -> Vec<u8> {
    let pixels = samples.len() / N;
    for pixel in 0..pixels {
        let alpha = samples[pixel * N + N - 1];
        for channel in 0..N - 1 {
            samples[pixel * (N - 1) + channel] = blend(samples[pixel * N + channel], alpha);
        }
    }
    samples.truncate(pixels * (N - 1));
    samples
}

fn tripled(grey: &[u8]) -> Vec<u8> {
    let mut rgb = vec![0; 3 * grey.len()];
    for (pixel, level) in rgb.chunks_exact_mut(3).zip(grey) {
        pixel.fill(*level);
    }
    rgb
}

fn high_bytes(samples: &[u16]) -> Vec<u8> {
    samples.iter().map(|sample| (sample >> 8) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Integer rounding equals rounding the exact quotient: 255 is odd, so there are no ties.
    #[test]
    fn blending_rounds_to_nearest() {
        for level in 0..=255_u8 {
            for alpha in 0..=255_u8 {
                let (c, a) = (f64::from(level), f64::from(alpha));
                let exact = ((c * a + 255.0 * (255.0 - a)) / 255.0).round();
                assert_eq!(f64::from(blend(level, alpha)), exact, "{level} through {alpha}");
            }
        }
    }

    #[test]
    fn compositing_in_place_keeps_pixels_apart() {
        let rgba = vec![10, 20, 30, 255, 1, 2, 3, 0, 0, 0, 0, 51];
        assert_eq!(composited::<4>(rgba), [10, 20, 30, 255, 255, 255, 204, 204, 204]);
        assert_eq!(composited::<2>(vec![10, 255, 7, 0, 0, 51]), [10, 255, 204]);
    }
}
