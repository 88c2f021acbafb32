//! Where speech begins and ends, to a few milliseconds: the detector's decisions lag, and loud
//! against quiet tells more exactly where the sound is.
//!
//! Where speech stands out of the noise by [`CLEAR`] decibels, an edge is where the level passes
//! the noise, near the detector's edge. Elsewhere the detector's known lag is taken off; levels
//! would lead to wrong places there (measured; `docs/sounds.md`).

use std::collections::VecDeque;
use std::ops::Range;

use super::RATE;

/// Samples of a level: 8 ms.
pub(super) const STEP: usize = 128;

/// Decibels of speech above noise from which on levels tell more than the detector.
const CLEAR: f32 = 25.0;
/// Decibels above the noise that are no longer noise.
const ABOVE_NOISE: f32 = 4.0;
/// Decibels below the speech's own peaks that still belong to it.
const BELOW_PEAK: f32 = 38.0;
/// The level of digital silence.
const SILENCE: f32 = 1e-10;

/// The detector's mean lag at a start and at an end, and what lies between.
const START_LAG: usize = seconds(0.05);
const END_LAG: usize = seconds(0.07);
const LAG: usize = seconds(0.04);

const fn seconds(seconds: f64) -> usize {
    (seconds * RATE as f64) as usize
}

/// Steps in a number of seconds.
const fn steps(seconds: f64) -> usize {
    (seconds * RATE as f64) as usize / STEP
}

/// Levels of the latest sound, in decibels, one a [`STEP`].
#[derive(Default)]
pub(super) struct Levels {
    /// Steps that were forgotten.
    base: usize,
    levels: VecDeque<f32>,
}

impl Levels {
    pub(super) fn push(&mut self, samples: &[f32]) {
        let energy = samples.iter().map(|s| s * s).sum::<f32>() / samples.len().max(1) as f32;
        self.levels.push_back(10.0 * (energy + SILENCE).log10());
    }

    /// Forgets what lies before a sample.
    pub(super) fn forget(&mut self, before: usize) {
        let count = (before / STEP).saturating_sub(self.base).min(self.levels.len());
        self.levels.drain(..count);
        self.base += count;
    }

    /// Steps heard so far.
    fn end(&self) -> usize {
        self.base + self.levels.len()
    }

    /// Those of a range of steps that are remembered.
    fn range(&self, steps: Range<usize>) -> impl DoubleEndedIterator<Item = (usize, f32)> + '_ {
        let start = steps.start.max(self.base);
        let end = steps.end.min(self.end()).max(start);
        (start..end).map(|step| (step, self.smooth(step)))
    }

    /// The mean with the neighbours.
    fn smooth(&self, step: usize) -> f32 {
        let at = step - self.base;
        let near = at.saturating_sub(1)..(at + 2).min(self.levels.len());
        let count = near.len() as f32;
        self.levels.range(near).sum::<f32>() / count
    }

    fn mean(&self, steps: Range<usize>) -> Option<f32> {
        let (count, sum) =
            self.range(steps).fold((0, 0.0), |(count, sum), (_, level)| (count + 1, sum + level));
        (count >= 5).then(|| sum / count as f32)
    }

    /// The level that a twentieth of the steps exceed.
    fn peak(&self, steps: Range<usize>) -> Option<f32> {
        let mut levels: Vec<f32> = self.range(steps).map(|(_, level)| level).collect();
        levels.sort_by(f32::total_cmp);
        levels.get((levels.len() * 19 / 20).min(levels.len().saturating_sub(1))).copied()
    }

    /// The quietest place of a range of samples: the middle of the quietest 40 ms.
    pub(super) fn quietest(&self, samples: Range<usize>) -> Option<usize> {
        let levels: Vec<(usize, f32)> =
            self.range(samples.start / STEP + 1..samples.end / STEP).collect();
        let window = levels.len().min(5);
        let sum = |part: &[(usize, f32)]| part.iter().map(|(_, level)| level).sum::<f32>();
        let quietest = levels.windows(window.max(1)).min_by(|a, b| sum(a).total_cmp(&sum(b)))?;
        Some(quietest[quietest.len() / 2].0 * STEP)
    }

    /// The edges in samples of the speech that the detector found at `found`, after `before`
    /// and not beyond `heard`. `open`: it has not ended yet.
    pub(super) fn edges(
        &self,
        found: Range<usize>,
        before: usize,
        heard: usize,
        open: bool,
    ) -> Range<usize> {
        let late = found.start.saturating_sub(START_LAG).max(before)
            ..found.end.saturating_sub(END_LAG).min(heard);
        let (start, end) = (found.start.saturating_sub(LAG), found.end.saturating_sub(LAG));
        let (start, end, before) = (start / STEP, end / STEP, before.div_ceil(STEP));
        let noise = [
            self.mean(
                start.saturating_sub(steps(0.5)).max(before)..start.saturating_sub(steps(0.1)),
            ),
            self.mean(end + steps(0.15)..end + steps(0.5)).filter(|_| !open),
        ];
        let noise = noise.into_iter().flatten().min_by(f32::total_cmp);
        let (Some(noise), Some(peak)) = (noise, self.peak(start..end.max(start + 1))) else {
            return late;
        };
        if peak - noise < CLEAR {
            return late;
        }
        let least = (noise + ABOVE_NOISE).max(peak - BELOW_PEAK);
        let loud = |(step, level): (usize, f32)| (level > least).then_some(step);
        let from = start.saturating_sub(steps(0.15)).max(before);
        let first = self.range(from..start + steps(0.1)).find_map(loud);
        let to = (end + steps(0.15)).min(self.end());
        let last = self.range(end.saturating_sub(steps(0.16))..to).rev().find_map(loud);
        let start = first.filter(|step| *step > from || from == 0).map(|step| step * STEP);
        let end = last.filter(|step| step + 1 < to).map(|step| (step + 1) * STEP);
        let start = start.unwrap_or(late.start);
        start..end.unwrap_or(late.end).min(heard).max(start)
    }
}
