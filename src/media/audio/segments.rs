//! Samples to segments: clips that the model hears one after the other.
//!
//! Speech is found as the sound comes in; pauses of 0.5 s or more separate stretches; neighbours
//! are joined as long as a clip is not longer than `longest`; a longer stretch is cut at a quiet
//! place. A clip begins 0.1 s before its speech and ends 0.2 s after it, within the sound, and
//! shares no sample with another. No more is held than the longest clip and what was read last.

use std::collections::VecDeque;
use std::ops::Range;

use super::RATE;
use super::sound::Sound;
use super::speech::{Speech, Stretch};
use crate::media::Error;

/// Samples before and after the speech of a clip: 0.2 s. With 0.1 s before it a small model lost first words.
const LEAD: usize = RATE as usize / 5;
const TAIL: usize = RATE as usize / 5;

/// Samples of a pause after which a stream's clip is given out at once: 1.5 s.
const LIVE_PAUSE: usize = RATE as usize * 3 / 2;

/// Samples that are listened to at a time: 0.1 s.
const STEP: usize = RATE as usize / 10;

/// Samples kept where no speech is: 1 s, more than edges are looked for.
const KEPT: usize = RATE as usize;

/// How a sound is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentOptions {
    /// Seconds of a clip at most; from 0.1 to 30.
    pub longest: f64,
    /// Whether speech is looked for; if not, cuts are each `longest` seconds.
    pub detect: bool,
}

/// A clip.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    /// Where its speech begins, in seconds of the source's own clock.
    pub start: f64,
    /// Where its speech ends, in seconds of the source's own clock.
    pub end: f64,
    /// At [`RATE`]: the speech with a little before and after it.
    pub samples: Vec<f32>,
    /// Its stretches of speech, in seconds of the source's own clock.
    pub speech: Vec<(f64, f64)>,
    /// The mean of the detector's scores over the speech, from 0 to 1; 1 without a detector.
    pub score: f32,
}

/// The segments of a sound, one after the other.
pub struct Segments {
    sound: Sound,
    /// Samples of a clip at most.
    longest: usize,
    /// Samples before and after the speech.
    lead: usize,
    tail: usize,
    speech: Option<Speech>,
    /// Samples that are held; the first is number `base` of the sound.
    samples: Vec<f32>,
    base: usize,
    /// Samples of `samples` that were listened to already.
    heard: usize,
    /// Stretches that are not given out yet.
    stretches: VecDeque<Stretch>,
    /// The end of the latest clip.
    given: usize,
    fault: Option<Error>,
    ended: bool,
}

impl Segments {
    /// Of a sound from where it is.
    pub fn new(sound: Sound, options: SegmentOptions) -> Self {
        let longest = (options.longest.clamp(0.1, 30.0) * f64::from(RATE)) as usize;
        Self {
            sound,
            longest,
            // short clips are not all margin
            lead: LEAD.min(longest / 10),
            tail: TAIL.min(longest / 5),
            speech: options.detect.then(Speech::new),
            samples: Vec::new(),
            base: 0,
            heard: 0,
            stretches: VecDeque::new(),
            given: 0,
            fault: None,
            ended: false,
        }
    }

    /// The next segment; none at the end.
    ///
    /// # Errors
    /// If the sound cannot be read on, once, after all that was before.
    pub fn next_segment(&mut self) -> Result<Option<Segment>, Error> {
        loop {
            if let Some(segment) = self.complete() {
                return Ok(Some(segment));
            }
            if self.heard < self.samples.len() {
                self.listen();
            } else if self.ended {
                return self.fault.take().map_or(Ok(None), Err);
            } else {
                self.read();
            }
        }
    }

    /// Seconds of the selection that were read so far.
    pub fn position(&self) -> f64 {
        seconds(self.base + self.samples.len())
    }

    fn read(&mut self) {
        match self.sound.next_piece() {
            Ok(Some(piece)) => return self.samples.extend_from_slice(&piece),
            Ok(None) => {}
            Err(error) => self.fault = Some(error),
        }
        self.ended = true;
        if let Some(speech) = &mut self.speech {
            speech.finish(self.base + self.samples.len());
            self.stretches.extend(std::iter::from_fn(|| speech.next()));
        }
    }

    /// Listens to a little more, and forgets what no clip can need.
    fn listen(&mut self) {
        let end = self.samples.len().min(self.heard + STEP);
        let Some(speech) = &mut self.speech else {
            self.heard = end;
            return;
        };
        speech.push(&self.samples[self.heard..end]);
        self.heard = end;
        self.stretches.extend(std::iter::from_fn(|| speech.next()));
        let needed = match (self.stretches.front(), speech.open()) {
            (Some(stretch), _) => stretch.at.start.saturating_sub(self.lead),
            (None, Some(open)) => open.start.saturating_sub(KEPT),
            (None, None) => (self.base + self.heard).saturating_sub(KEPT),
        };
        let count = needed.saturating_sub(self.base).min(self.heard);
        // moving the rest costs as much as it is long
        if count >= KEPT {
            self.samples.drain(..count);
            self.base += count;
            self.heard -= count;
        }
    }

    /// The next segment, if nothing can be added to it any more.
    fn complete(&mut self) -> Option<Segment> {
        let Some(speech) = &mut self.speech else {
            return self.measured();
        };
        let heard = speech.heard();
        let open = speech.open();
        let room = self.longest - self.lead - self.tail;
        let Some(first) = self.stretches.front() else {
            let open = open.filter(|open| open.len() > room && !self.ended)?;
            let cut = speech.cut(room.min(open.len()))?;
            return Some(self.clip(&[cut]));
        };
        let fits = |end: usize| end.saturating_sub(first.at.start) <= room;
        let count = self.stretches.iter().take_while(|next| fits(next.at.end)).count();
        let last = &self.stretches[count.max(1) - 1].at;
        let full = count < self.stretches.len();
        let grown = match &open {
            // what is open may still be dropped or end here: only its length counts
            Some(open) => !fits(open.end),
            None => !fits(heard) || self.sound.is_stream() && heard >= last.end + LIVE_PAUSE,
        };
        if !(full || grown || self.ended) {
            return None;
        }
        let clip: Vec<Stretch> = self.stretches.drain(..count.max(1)).collect();
        Some(self.clip(&clip))
    }

    /// The next clip of full length, or the last one.
    fn measured(&mut self) -> Option<Segment> {
        let count = self.longest.min(self.heard);
        if count == 0 || count < self.longest && !self.ended {
            return None;
        }
        let samples: Vec<f32> = self.samples.drain(..count).collect();
        self.heard -= count;
        let from = self.base;
        self.base += count;
        let (start, end) = (self.time(from), self.time(self.base));
        Some(Segment { start, end, samples, speech: vec![(start, end)], score: 1.0 })
    }

    /// A segment of neighbouring stretches, at least one.
    fn clip(&mut self, stretches: &[Stretch]) -> Segment {
        let (first, last) = (&stretches[0].at, &stretches[stretches.len() - 1].at);
        // a stretch that was cut goes on without a margin
        let cut = self.speech.as_ref().and_then(Speech::open).is_some_and(|o| o.start == last.end);
        let tail = if cut { 0 } else { self.tail };
        let begin = first.start.saturating_sub(self.lead).max(self.given).max(self.base);
        let end = (last.end + tail).min(begin + self.longest).min(self.base + self.samples.len());
        let held: Range<usize> = begin - self.base..end.max(begin) - self.base;
        let samples = self.samples[held].to_vec();
        self.given = end;
        let speech: Vec<(f64, f64)> =
            stretches.iter().map(|s| (self.time(s.at.start), self.time(s.at.end))).collect();
        let score: f32 = stretches.iter().map(|stretch| stretch.score).sum();
        let voiced: usize = stretches.iter().map(|stretch| stretch.voiced).sum();
        Segment {
            start: speech[0].0,
            end: speech[speech.len() - 1].1,
            samples,
            speech,
            score: (score / voiced.max(1) as f32).clamp(0.0, 1.0),
        }
    }

    /// Seconds of the source's own clock.
    fn time(&self, sample: usize) -> f64 {
        self.sound.start() + seconds(sample)
    }
}

fn seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(RATE)
}

#[cfg(test)]
mod tests;
