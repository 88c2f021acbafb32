//! From any rate to [`RATE`], a piece at a time.
//!
//! `rubato`'s FFT resampler: both rates are fixed, and it cuts off what lies above half of the
//! lower rate. Its delay is taken away, so that times stay what they were.

use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

use super::RATE;

/// Samples of a block at the lower rate, at least; the filter is as long.
const BLOCK: usize = 1024;

/// Of the filter: the library's own choice.
const WINDOW: WindowFunction = WindowFunction::BlackmanHarris2;

/// Turns samples of one channel into samples at [`RATE`].
pub(super) struct Resampler {
    fft: Fft<f32>,
    rate: u32,
    /// What does not fill a block yet.
    waiting: Vec<f32>,
    /// A block of output.
    block: Vec<f32>,
    /// Output to leave out: the rest of the filter's delay.
    delay: usize,
    taken: u64,
    given: u64,
}

impl Resampler {
    /// None where nothing is to be done.
    ///
    /// # Panics
    /// If `rate` is 0.
    pub(super) fn new(rate: u32) -> Option<Self> {
        if rate == RATE {
            return None;
        }
        let least = BLOCK * rate.max(RATE) as usize / RATE as usize;
        // whole periods of both rates, and even: else the delay is no whole number of samples
        let period = rate as usize / gcd(rate as usize, RATE as usize);
        let block =
            least.next_multiple_of(if period.is_multiple_of(2) { period } else { 2 * period });
        let fft =
            Fft::new_custom(rate as usize, RATE as usize, block, 1, 1, WINDOW, FixedSync::Both)
                .expect("rates above 0 and a block of samples");
        let (delay, block) = (fft.output_delay(), vec![0.0; fft.output_frames_max()]);
        Some(Self { fft, rate, waiting: Vec::new(), block, delay, taken: 0, given: 0 })
    }

    /// Takes samples, adds those that can be known at [`RATE`].
    pub(super) fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.taken += samples.len() as u64;
        self.waiting.extend_from_slice(samples);
        self.run(out);
    }

    /// Adds the last samples: as many in all as the sound is long.
    pub(super) fn finish(&mut self, out: &mut Vec<f32>) {
        let (taken, rate) = (u128::from(self.taken), u128::from(self.rate));
        let all = ((taken * u128::from(RATE) + rate / 2) / rate) as u64;
        while self.given < all {
            let (before, given) = (out.len(), self.given);
            self.waiting.resize(self.fft.input_frames_next(), 0.0);
            self.run(out);
            let more = (all - given).min((out.len() - before) as u64);
            out.truncate(before + more as usize);
        }
    }

    fn run(&mut self, out: &mut Vec<f32>) {
        let mut used = 0;
        loop {
            let wanted = self.fft.input_frames_next();
            let Some(input) = self.waiting.get(used..used + wanted) else {
                break;
            };
            let frames = self.block.len();
            let input = SequentialSlice::new(input, 1, wanted).expect("one channel");
            let mut output =
                SequentialSlice::new_mut(&mut self.block, 1, frames).expect("one channel");
            let (_, count) = self
                .fft
                .process_into_buffer(&input, &mut output, None)
                .expect("buffers as long as asked for");
            used += wanted;
            let late = self.delay.min(count);
            self.delay -= late;
            self.given += (count - late) as u64;
            out.extend_from_slice(&self.block[late..count]);
        }
        self.waiting.drain(..used);
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    /// A tone of so many hertz, resampled in uneven pieces.
    fn resampled(rate: u32, tone: f64, count: usize) -> Vec<f32> {
        let wave = |at| (at as f64 * tone * TAU / f64::from(rate)).sin() as f32;
        let samples: Vec<f32> = (0..count).map(wave).collect();
        let (mut resampler, mut out) = (Resampler::new(rate).unwrap(), Vec::new());
        samples.chunks(777).for_each(|piece| resampler.push(piece, &mut out));
        resampler.finish(&mut out);
        out
    }

    #[test]
    fn tones_keep_their_times_and_lengths() {
        for rate in [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000] {
            let out = resampled(rate, 440.0, rate as usize);
            assert_eq!(out.len(), RATE as usize, "{rate}");
            // away from the ends, where the tone begins at once
            for (at, sample) in out.iter().enumerate().skip(2000).take(12_000) {
                let wanted = (at as f64 * 440.0 * TAU / f64::from(RATE)).sin() as f32;
                assert!((sample - wanted).abs() < 1e-3, "{rate}: {at}: {sample}, not {wanted}");
            }
        }
        assert_eq!(resampled(44_100, 440.0, 1).len(), 0);
        assert_eq!(resampled(8_000, 440.0, 3).len(), 6);
    }

    #[test]
    fn what_cannot_be_heard_at_16_khz_does_not_come_back() {
        let power = |samples: &[f32]| {
            let middle = &samples[2000..14_000];
            middle.iter().map(|s| s * s).sum::<f32>() / middle.len() as f32
        };
        // 10 kHz would be heard as 6 kHz
        assert!(power(&resampled(48_000, 10_000.0, 48_000)) < 1e-8);
        assert!((power(&resampled(48_000, 7_000.0, 48_000)) - 0.5).abs() < 0.01);
    }
}
