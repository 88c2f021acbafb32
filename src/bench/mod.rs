//! Timings of a model beside what the machine can do at best, measured in the same run.
//!
//! - [`run`]: prefill and decoding at several lengths and depths, peak memory.
//! - [`picture`], [`sound`]: a tower, and its soft tokens.
//! - [`floor`]: how fast this machine reads memory.

pub mod floor;
mod memory;
mod picture;
mod sound;

use std::time::{Duration, Instant};

use serde::Serialize;

pub use memory::peak_resident;
pub use picture::{PictureTimes, picture};
pub use sound::{SoundTimes, sound};

use crate::model::StepError;
use crate::model::text::{Decoder, Logits};
use crate::tokenizer::TokenId;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Lengths of prompts.
    pub prefill: Vec<usize>,
    /// Tokens decoded one by one.
    pub decode: usize,
    /// Positions in the cache before each measurement.
    pub depths: Vec<usize>,
    /// How often each is measured, after one run that does not count.
    pub repetitions: usize,
}

/// What a measurement is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Prefill,
    Decode,
}

/// Tokens a second at a length and depth.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    pub kind: Kind,
    pub tokens: usize,
    pub depth: usize,
    /// One entry a repetition.
    pub tokens_per_second: Vec<f64>,
}

impl Measurement {
    pub fn mean(&self) -> f64 {
        self.tokens_per_second.iter().sum::<f64>() / self.tokens_per_second.len() as f64
    }

    /// The standard deviation over the repetitions.
    pub fn spread(&self) -> f64 {
        let (mean, n) = (self.mean(), self.tokens_per_second.len());
        let squares: f64 = self.tokens_per_second.iter().map(|x| (x - mean).powi(2)).sum();
        if n > 1 { (squares / (n - 1) as f64).sqrt() } else { 0.0 }
    }
}

/// Measures every combination.
///
/// # Errors
/// Those of the decoder: a length beyond the context, an interruption.
pub fn run(decoder: &mut Decoder, options: &Options) -> Result<Vec<Measurement>, StepError> {
    let mut all = Vec::new();
    for &depth in &options.depths {
        let lengths = options.prefill.iter().map(|&tokens| (Kind::Prefill, tokens));
        let decode = (options.decode > 0).then_some((Kind::Decode, options.decode));
        for (kind, tokens) in lengths.chain(decode) {
            let mut rates = Vec::new();
            for repetition in 0..=options.repetitions {
                let time = measure(decoder, kind, tokens, depth)?;
                if repetition > 0 {
                    rates.push(tokens as f64 / time.as_secs_f64());
                }
            }
            all.push(Measurement { kind, tokens, depth, tokens_per_second: rates });
        }
    }
    Ok(all)
}

/// The time of one run on a cache that is filled to `depth` first.
fn measure(
    decoder: &mut Decoder,
    kind: Kind,
    tokens: usize,
    depth: usize,
) -> Result<Duration, StepError> {
    let vocabulary = decoder.model().config().vocabulary;
    if decoder.truncate(depth) != depth {
        decoder.clear();
        decoder.prefill(&ids(vocabulary, 0, depth))?;
    }
    let prompt = ids(vocabulary, depth, tokens);
    let start = Instant::now();
    match kind {
        Kind::Prefill => drop(decoder.run(&prompt, Logits::Last)?),
        Kind::Decode => {
            for id in &prompt {
                decoder.run(&[*id], Logits::Last)?;
            }
        }
    }
    Ok(start.elapsed())
}

/// Ids all over the vocabulary, the same in every run: the per-layer table is read at as many
/// places as by a text.
fn ids(vocabulary: usize, from: usize, count: usize) -> Vec<TokenId> {
    let id = |i: usize| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    (from..from + count).map(|i| TokenId((id(i + 1) % vocabulary as u64) as u32)).collect()
}
