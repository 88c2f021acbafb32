//! What is known of a file: its segments with their words, and where the time went.

use serde_json::{Value, json};

use super::clock;
use super::language::Spoken;

/// A stretch of a file and its words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Segment {
    /// Seconds in the file's clock: where speech begins and ends.
    pub start: f64,
    pub end: f64,
    /// The stretches of speech in it.
    pub speech: Vec<(f64, f64)>,
    pub text: String,
    /// What a translation was made from.
    pub transcription: Option<String>,
    /// How many tokens the text took.
    pub tokens: usize,
    pub avg_logprob: Option<f64>,
    pub no_speech: f64,
    /// The text is not whole: it repeated itself or did not end.
    pub truncated: bool,
}

impl Segment {
    /// The words as they are shown, with a mark where they end too early.
    pub fn shown(&self) -> String {
        match (self.truncated, self.text.is_empty()) {
            (false, _) => self.text.clone(),
            (true, true) => "[...]".to_owned(),
            (true, false) => format!("{} [...]", self.text),
        }
    }

    /// The time at a part (0 to 1) of the speech; at a pause it is what follows it, `after`, or what
    /// is before it.
    pub fn at(&self, part: f64, after: bool) -> f64 {
        const CLOSE: f64 = 1e-9;
        let spoken = |(start, end): &(f64, f64)| (end - start).max(0.0);
        let mut left = part * self.speech.iter().map(spoken).sum::<f64>();
        for stretch in &self.speech {
            let length = spoken(stretch);
            if left < length - CLOSE || (!after && left <= length + CLOSE) {
                return stretch.0 + left.min(length);
            }
            left = (left - length).max(0.0);
        }
        self.end
    }

    /// The JSON object.
    pub fn json(&self) -> Value {
        let mut entry = json!({
            "start": rounded(self.start),
            "end": rounded(self.end),
            "speech": self.speech.iter().map(|s| [rounded(s.0), rounded(s.1)]).collect::<Vec<_>>(),
            "text": self.text,
            "tokens": self.tokens,
            "avg_logprob": self.avg_logprob,
            "no_speech": self.no_speech,
            "truncated": self.truncated,
        });
        if let (Some(text), Some(entry)) = (&self.transcription, entry.as_object_mut()) {
            entry.insert("transcription".to_owned(), json!(text));
        }
        entry
    }
}

/// Where a file's time went, in seconds, and its tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timings {
    /// Decoding, resampling and finding speech, beside the rest.
    pub read: f64,
    pub encode: f64,
    pub prompt: f64,
    pub decode: f64,
    /// From the file's first second to its last word.
    pub total: f64,
    /// Prompt tokens that were read, and those that the cache held.
    pub prefilled: usize,
    pub cached: usize,
    pub generated: usize,
}

/// A file's words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transcript {
    pub file: String,
    /// Seconds that were listened to.
    pub duration: f64,
    pub language: Option<Spoken>,
    pub translate: Option<Spoken>,
    pub segments: Vec<Segment>,
    /// The work was ended, or the file broke, before its end.
    pub partial: bool,
    pub timings: Timings,
}

impl Transcript {
    /// Seconds of sound in a second of work.
    pub fn speed(&self) -> f64 {
        if self.timings.total > 0.0 { self.duration / self.timings.total } else { 0.0 }
    }

    /// The words, a segment a line.
    pub fn text(&self) -> String {
        let lines = self.segments.iter().map(Segment::shown).filter(|text| !text.is_empty());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The JSON object.
    pub fn json(&self) -> Value {
        let timings = &self.timings;
        let mut entry = json!({
            "file": self.file,
            "duration": rounded(self.duration),
            "language": self.language.map(|language| language.code),
            "segments": self.segments.iter().map(Segment::json).collect::<Vec<_>>(),
            "text": self.text(),
            "partial": self.partial,
            "timings": {
                "read": timings.read,
                "encode": timings.encode,
                "prompt": timings.prompt,
                "decode": timings.decode,
                "total": timings.total,
                "speed": self.speed(),
                "prefilled": timings.prefilled,
                "cached": timings.cached,
                "generated": timings.generated,
            },
        });
        if let (Some(wanted), Some(entry)) = (self.translate, entry.as_object_mut()) {
            entry.insert("translate".to_owned(), json!(wanted.code));
        }
        entry
    }
}

/// Seconds to a millisecond.
fn rounded(seconds: f64) -> f64 {
    clock::milliseconds(seconds) as f64 / 1000.0
}
