//! Samples to segments.
use super::sound::Sound;
use crate::media::Error;
pub struct SegmentOptions {
    pub longest: f64,
    pub detect: bool,
}
pub struct Segment {
    pub start: f64,
    pub end: f64,
    pub samples: Vec<f32>,
    pub speech: Vec<(f64, f64)>,
    pub score: f32,
}
pub struct Segments {
    sound: Sound,
    longest: usize,
    waiting: Vec<f32>,
    given: usize,
    fault: Option<Error>,
    ended: bool,
}
impl Segments {
    pub fn new(sound: Sound, options: SegmentOptions) -> Self {
        let longest = ((options.longest * 16000.0) as usize).max(1);
        Self { sound, longest, waiting: Vec::new(), given: 0, fault: None, ended: false }
    }
    pub fn next_segment(&mut self) -> Result<Option<Segment>, Error> {
        while self.waiting.len() < self.longest && !self.ended {
            match self.sound.next_piece() {
                Ok(Some(piece)) => self.waiting.extend(piece),
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    self.fault = Some(error);
                }
            }
        }
        if self.waiting.is_empty() {
            return self.fault.take().map_or(Ok(None), Err);
        }
        let rest = self.waiting.split_off(self.longest.min(self.waiting.len()));
        let samples = std::mem::replace(&mut self.waiting, rest);
        let start = self.sound.start() + self.given as f64 / 16000.0;
        self.given += samples.len();
        let end = self.sound.start() + self.given as f64 / 16000.0;
        Ok(Some(Segment { start, end, samples, speech: vec![(start, end)], score: 1.0 }))
    }
    pub fn position(&self) -> f64 {
        (self.given + self.waiting.len()) as f64 / 16000.0
    }
}
