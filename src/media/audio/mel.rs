//! Log-mel features, as the reference's extractor makes them.
//!
//! ```text
//! frame t: samples 160·t … 160·t + 511, each less 0.97 of the one before (the first: times 0.03)
//! X = FFT(frame · Hann window, 1024 points)
//! feature[t][m] = ln max(Σ_k |X[k]|·filter[m][k], 1e-5)
//! ```
//! A frame spans 513 samples, of which the last is not used; none is cut short. The filters are
//! triangles, evenly spaced on HTK's mel scale from 125 to 7600 Hz.
//!
//! Frames and window are computed in f32, the rest in f64, as the reference does but for the
//! transform. What is left of a difference, up to 2e-3, is in bands that are all but silent beside a
//! loud one: a cosine of the window rounded otherwise.
//!
//! Reference: `Gemma3nAudioFeatureExtractor`; reference.md §8.

use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};

use super::RATE;

/// Samples of a frame that count.
const FRAME: usize = 512;
/// Samples from one frame to the next.
pub const HOP: usize = 160;
/// What a frame needs: the reference cuts frames one sample longer.
pub const SPAN: usize = FRAME + 1;
const FFT: usize = 1024;
const PREEMPHASIS: f32 = 0.97;
const FLOOR: f64 = 1e-5;
/// The filters' ends, in hertz.
const LOWEST: f64 = 125.0;
const HIGHEST: f64 = 7600.0;
/// Samples are padded to a multiple of this.
const MULTIPLE: usize = 128;
/// Samples of a clip: 30 s.
pub const LONGEST: usize = 30 * RATE as usize;

/// The features of a clip.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// `[bins, frames]`, a frame's bins together.
    pub values: Vec<f32>,
    /// Frames whose first sample is the sound's own, not padding: all but the last few.
    pub valid: Vec<bool>,
}

/// A filter's weights, from this bin of the transform on.
struct Filter {
    first: usize,
    weights: Vec<f64>,
}

/// Makes features: window, filters and transform.
pub struct LogMel {
    window: Vec<f32>,
    filters: Vec<Filter>,
    fft: Arc<dyn RealToComplex<f64>>,
}

impl LogMel {
    /// With so many mel bins, at least one.
    pub fn new(bins: usize) -> Self {
        // In f32 to the angle: the reference's window differs from an exact one by 2e-7, which a
        // band 140 dB below a loud one shows.
        let angle = |i: usize| std::f32::consts::TAU * i as f32 / FRAME as f32;
        let hann = |i: usize| 0.5 * (1.0 - f64::from(angle(i)).cos() as f32);
        Self {
            window: (0..FRAME).map(hann).collect(),
            filters: filters(bins),
            fft: RealFftPlanner::new().plan_fft_forward(FFT),
        }
    }

    /// Of a clip at 16 kHz; what is beyond 30 s is left out. No frame comes of less than 513
    /// samples (with padding: of 512 or less).
    pub fn features(&self, samples: &[f32]) -> Features {
        self.padded(samples, samples.len())
    }

    /// The same in a batch whose longest clip has `longest` samples: padding as long as that.
    pub fn padded(&self, samples: &[f32], longest: usize) -> Features {
        let samples = &samples[..samples.len().min(LONGEST)];
        let length = longest.clamp(samples.len(), LONGEST).next_multiple_of(MULTIPLE);
        let frames = length.checked_sub(SPAN).map_or(0, |rest| rest / HOP + 1);
        let mut values = Vec::with_capacity(frames * self.filters.len());
        let mut work = Work::new(&*self.fft);
        for t in 0..frames {
            self.frame(samples, t * HOP, &mut work);
            values.extend(self.filters.iter().map(|filter| {
                let bins = &work.magnitudes[filter.first..];
                let sum: f64 = filter.weights.iter().zip(bins).map(|(w, x)| w * x).sum();
                sum.max(FLOOR).ln() as f32
            }));
        }
        Features { values, valid: (0..frames).map(|t| t * HOP < samples.len()).collect() }
    }

    /// The magnitudes of the frame that begins at a sample.
    fn frame(&self, samples: &[f32], start: usize, work: &mut Work) {
        let sample = |i: usize| samples.get(start + i).copied().unwrap_or(0.0);
        work.input.fill(0.0);
        for (i, (value, window)) in work.input.iter_mut().zip(&self.window).enumerate() {
            let emphasized = match i {
                0 => sample(0) * (1.0 - PREEMPHASIS),
                _ => sample(i) - PREEMPHASIS * sample(i - 1),
            };
            *value = f64::from(emphasized * window);
        }
        self.fft
            .process_with_scratch(&mut work.input, &mut work.spectrum, &mut work.scratch)
            .expect("buffers of the transform's lengths");
        for (magnitude, x) in work.magnitudes.iter_mut().zip(&work.spectrum) {
            // As the reference has it, which keeps magnitudes in single precision.
            *magnitude = f64::from(x.norm() as f32);
        }
    }
}

/// A transform's buffers.
struct Work {
    input: Vec<f64>,
    spectrum: Vec<realfft::num_complex::Complex<f64>>,
    scratch: Vec<realfft::num_complex::Complex<f64>>,
    magnitudes: Vec<f64>,
}

impl Work {
    fn new(fft: &dyn RealToComplex<f64>) -> Self {
        let spectrum = fft.make_output_vec();
        let magnitudes = vec![0.0; spectrum.len()];
        let (input, scratch) = (fft.make_input_vec(), fft.make_scratch_vec());
        Self { input, spectrum, scratch, magnitudes }
    }
}

/// Triangles between neighbours of `bins + 2` points.
fn filters(bins: usize) -> Vec<Filter> {
    let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    let hertz = |mel: f64| 700.0 * (10f64.powf(mel / 2595.0) - 1.0);
    let (low, high) = (mel(LOWEST), mel(HIGHEST));
    let point = |i: usize| hertz(low + (high - low) * i as f64 / (bins + 1) as f64);
    (0..bins)
        .map(|m| {
            let [left, top, right] = [point(m), point(m + 1), point(m + 2)];
            let weight = |k: usize| {
                let at = f64::from(RATE) * k as f64 / FFT as f64;
                ((at - left) / (top - left)).min((right - at) / (right - top)).max(0.0)
            };
            let weights: Vec<f64> = (0..=FFT / 2).map(weight).collect();
            let first = weights.iter().position(|&w| w > 0.0).unwrap_or(0);
            let last = weights.iter().rposition(|&w| w > 0.0).map_or(first, |last| last + 1);
            Filter { first, weights: weights[first..last].to_vec() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// reference.md §11.4.
    #[test]
    fn a_tone_has_the_references_features() {
        let turn = std::f64::consts::TAU * 440.0 / 16_000.0;
        let samples: Vec<f32> =
            (0..16_000).map(|n| (0.5 * (turn * n as f64).sin()) as f32).collect();
        let features = LogMel::new(128).features(&samples);
        assert_eq!(features.valid, [true; 97]);
        let bins = [0, 15, 16, 30, 64, 127];
        for (frame, expected) in [
            (0, [-5.73793, 1.34215, 2.28034, -5.38540, -9.65804, -11.51293]),
            (33, [-5.48611, 1.34219, 2.28031, -5.40318, -9.88641, -11.51293]),
            (96, [-5.62317, 1.34217, 2.28033, -5.39229, -9.72206, -11.51293]),
        ] {
            for (bin, expected) in bins.into_iter().zip(expected) {
                let found = features.values[frame * 128 + bin];
                // The quietest band above the floor shows how a window was rounded.
                let quiet = (-11.5f32..-9.0).contains(&expected);
                let tolerance = if quiet { 1e-3 } else { 2e-5 };
                let what = format!("frame {frame}, bin {bin}");
                assert!((found - expected).abs() < tolerance, "{what}: {found}, not {expected}");
            }
        }
    }

    /// reference.md §8.6.
    #[test]
    fn filters_are_the_references() {
        let filters = filters(128);
        let at = |m: usize, k: usize| {
            let filter: &Filter = &filters[m];
            k.checked_sub(filter.first).and_then(|i| filter.weights.get(i)).copied().unwrap_or(0.0)
        };
        for (m, k, expected) in
            [(0, 9, 0.9520245), (1, 9, 0.0479755), (1, 10, 0.9231734), (127, 477, 0.9976679)]
        {
            let found = at(m, k);
            assert!((found - expected).abs() < 1e-7, "filter {m}, bin {k}: {found}");
        }
        assert_eq!((filters[0].weights.len(), filters[127].first), (1, 468));
        assert_eq!(filters[127].weights.len(), 487 - 468);
    }

    #[test]
    fn lengths_and_padding_are_the_references() {
        let log_mel = LogMel::new(128);
        let frames = |samples: usize| log_mel.features(&vec![0.0; samples]).valid.len();
        assert_eq!([0, 512, 513, 640, 480_000, 500_000].map(frames), [0, 0, 1, 1, 2997, 2997]);
        let alone = log_mel.features(&[0.0; 20_000]);
        assert_eq!((alone.valid.len(), alone.valid.iter().all(|&valid| valid)), (123, true));
        let batched = log_mel.padded(&[0.0; 20_000], 480_000);
        let valid = batched.valid.iter().filter(|&&valid| valid).count();
        assert_eq!((batched.valid.len(), valid), (2997, 125));
        assert!(alone.values.iter().all(|&x| x == 1e-5f64.ln() as f32));
    }
}
