//! Stretches of speech in samples, as they come in.
//!
//! `earshot` scores each frame of 16 ms. Scores with a hysteresis give voiced runs; short holes
//! are closed, lone blips dropped, edges refined, and pauses of less than [`PAUSE`] bridged.

use std::collections::VecDeque;
use std::ops::Range;

use earshot::Detector;

use super::RATE;
use super::edges::{Levels, STEP};

/// Samples that the detector scores together.
const FRAME: usize = 256;

/// The score from which on sound is speech, and below which it is no longer.
const ONSET: f32 = 0.6;
const OFFSET: f32 = 0.55;

/// Samples of a pause that separates stretches: 0.5 s, less a step of the levels.
const PAUSE: usize = RATE as usize / 2 - STEP;

/// Samples before its first voiced frame that speech begins, about.
const EDGE: usize = 4 * FRAME;

/// Frames without speech that are part of it still, before edges are known: 0.35 s.
const HOLE: usize = 22;

/// Frames that are a blip, no word: 0.1 s.
const BLIP: usize = 6;

/// Samples before which no edge is looked for: 0.75 s.
const LOOK_BACK: usize = RATE as usize * 3 / 4;

/// A stretch of speech.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stretch {
    /// Samples of the sound.
    pub(super) at: Range<usize>,
    /// The sum of the scores of its voiced frames.
    pub(super) score: f32,
    /// Its voiced frames.
    pub(super) voiced: usize,
}

/// Finds speech.
pub(super) struct Speech {
    detector: Box<Detector>,
    levels: Levels,
    /// What does not fill a frame yet.
    waiting: Vec<f32>,
    /// Frames scored.
    frames: usize,
    voiced: bool,
    /// Voiced runs with short holes, in frames; not ended yet.
    run: Option<Stretch>,
    /// Where the run begins if it is the rest of a stretch that was cut, in samples.
    cut: Option<usize>,
    /// The latest stretch, which the next may join.
    held: Option<Stretch>,
    /// The end of the latest stretch, in samples.
    before: usize,
    found: VecDeque<Stretch>,
}

impl Speech {
    pub(super) fn new() -> Self {
        Self {
            detector: Detector::default_boxed(),
            levels: Levels::default(),
            waiting: Vec::with_capacity(FRAME),
            frames: 0,
            voiced: false,
            run: None,
            cut: None,
            held: None,
            before: 0,
            found: VecDeque::new(),
        }
    }

    /// Listens to the next samples.
    pub(super) fn push(&mut self, samples: &[f32]) {
        for sample in samples {
            // the detector knows nothing beyond ±1
            self.waiting.push(sample.clamp(-1.0, 1.0));
            if self.waiting.len() == FRAME {
                self.frame(self.heard() + FRAME);
            }
        }
    }

    /// Ends the sound of `total` samples: all that is open is ended.
    pub(super) fn finish(&mut self, total: usize) {
        if !self.waiting.is_empty() {
            self.waiting.resize(FRAME, 0.0);
            self.frame(total);
        }
        if let Some(run) = self.run.take() {
            self.close(run, total, self.voiced);
        }
        self.found.extend(self.held.take());
    }

    /// The next stretch that has ended for good.
    pub(super) fn next(&mut self) -> Option<Stretch> {
        self.found.pop_front()
    }

    /// The stretch that may still grow, about: in samples.
    pub(super) fn open(&self) -> Option<Range<usize>> {
        let run = self.run.as_ref().map(|run| {
            let start = self.cut.unwrap_or((run.at.start * FRAME).saturating_sub(EDGE));
            start..run.at.end * FRAME
        });
        match (&self.held, run) {
            (Some(held), Some(run)) => Some(held.at.start..run.end.max(held.at.end)),
            (Some(held), None) => Some(held.at.clone()),
            (None, run) => run,
        }
    }

    /// Samples that were listened to.
    pub(super) fn heard(&self) -> usize {
        self.frames * FRAME
    }

    /// Cuts the open stretch, which is longer than `longest`, at the quietest place of its
    /// last third within `longest`, or where a pause separates what is held from what is running.
    /// Gives what is before it.
    pub(super) fn cut(&mut self, longest: usize) -> Option<Stretch> {
        let open = self.open()?;
        let begins = self.run.as_ref().map(|run| (run.at.start * FRAME).saturating_sub(EDGE));
        if let Some(begins) = begins
            && let Some(held) = self.held.take_if(|held| begins >= held.at.end + PAUSE)
        {
            return Some(held);
        }
        let first = match (self.held.take(), &self.run) {
            (Some(held), Some(_)) => Some(held),
            (Some(held), None) => return Some(held),
            (None, _) => None,
        };
        let mut run = self.run.take()?;
        let start = match (&first, self.cut) {
            (Some(held), _) => held.at.start,
            (None, Some(cut)) => cut,
            (None, None) => {
                let found = run.at.start * FRAME..run.at.end * FRAME;
                self.levels.edges(found, self.before, self.heard(), true).start
            }
        };
        let end = (start + longest).min(open.end);
        let third = start + (end - start) * 2 / 3..end;
        let at = self.levels.quietest(third).unwrap_or(end).clamp(start + 1, end.max(start + 1));
        // the scores are shared out by length
        let all = (open.end - start).max(1);
        let part = (at - start) as f32 / all as f32;
        let mut given = Stretch { at: start..at, score: run.score * part, voiced: 0 };
        given.voiced = ((run.voiced as f32 * part) as usize).max(1);
        run.score -= given.score;
        run.voiced = run.voiced.saturating_sub(given.voiced).max(1);
        if let Some(held) = first {
            given.score += held.score;
            given.voiced += held.voiced;
        }
        run.at.start = at / FRAME;
        self.run = Some(run);
        self.cut = Some(at);
        self.before = at;
        self.levels.forget(at.saturating_sub(LOOK_BACK));
        Some(given)
    }

    /// Scores a full frame; the sound goes up to `heard` samples.
    fn frame(&mut self, heard: usize) {
        let score = self.detector.predict_f32(&self.waiting);
        for step in self.waiting.chunks(STEP) {
            self.levels.push(step);
        }
        self.waiting.clear();
        let frame = self.frames;
        self.frames += 1;
        self.voiced = score >= if self.voiced { OFFSET } else { ONSET };
        if self.voiced {
            let run = self.run.get_or_insert(Stretch { at: frame..frame, score: 0.0, voiced: 0 });
            run.at.end = frame + 1;
            run.score += score;
            run.voiced += 1;
        } else if let Some(run) = self.run.take_if(|run| frame - run.at.end >= HOLE) {
            self.close(run, heard, false);
        }
        if self.run.is_none() {
            self.found.extend(self.held.take_if(|held| heard > held.at.end + PAUSE * 2));
            self.levels.forget(heard.saturating_sub(LOOK_BACK).max(self.before));
        }
    }

    /// Ends a run of voiced frames. `open`: the sound ends within it.
    fn close(&mut self, run: Stretch, heard: usize, open: bool) {
        let cut = self.cut.take();
        if cut.is_none() && run.voiced < BLIP {
            return;
        }
        let found = run.at.start * FRAME..(run.at.end * FRAME).min(heard);
        let mut at = self.levels.edges(found, self.before, heard, open);
        if open {
            at.end = heard;
        }
        if let Some(cut) = cut {
            at = cut..at.end.max(cut);
        }
        if at.is_empty() {
            return;
        }
        self.before = at.end;
        let stretch = Stretch { at, ..run };
        match &mut self.held {
            Some(held) if stretch.at.start < held.at.end + PAUSE => {
                held.at.end = stretch.at.end.max(held.at.end);
                held.score += stretch.score;
                held.voiced += stretch.voiced;
            }
            held => {
                self.found.extend(held.take());
                *held = Some(stretch);
            }
        }
    }
}
