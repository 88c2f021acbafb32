//! Logits to the next token.
//!
//! repeat penalty (on the capped logits, over the last ids, prompt included) → temperature →
//! top-k → top-p → min-p → draw. Temperature 0: the greatest logit, of equal ones the lowest id.
//!
//! - repeat penalty r: l < 0 → l·r, else l/r, once for each different id.
//! - top-k: every token whose logit is not below the k-th greatest (ties stay).
//! - top-p: a token goes when the probability of itself and all below it is ≤ 1 − p, that is when
//!   those above it already hold p; one token always stays. Of equal ones, lower ids go first.
//! - min-p: a token goes when its probability is below min_p times the greatest.
//!
//! Reference: transformers' RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper,
//! TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper, in this order. Only what a step needs is
//! ever sorted.

use std::collections::VecDeque;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::tokenizer::TokenId;

/// How the next token is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerOptions {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Number of tokens that stay; 0 for all.
    pub top_k: usize,
    /// Probability that the tokens that stay hold together; 1 for all.
    pub top_p: f32,
    /// Least probability that stays, as a part of the greatest; 0 for all.
    pub min_p: f32,
    /// Divides the logits of recent ids; 1 for none.
    pub repeat_penalty: f32,
    /// How many ids are recent.
    pub repeat_last_n: usize,
    /// Seed of the draws; a random one if `None`.
    pub seed: Option<u64>,
}

impl Default for SamplerOptions {
    /// Gemma's own.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 64,
            top_p: 0.95,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: None,
        }
    }
}

impl SamplerOptions {
    /// Checks every option's range.
    ///
    /// # Errors
    /// [`SamplerError::Option`] with the first that is out of range.
    pub fn validate(&self) -> Result<(), SamplerError> {
        let from_0_to_1 = |value: f32| (0.0..=1.0).contains(&value);
        let checks = [
            (
                "temperature",
                self.temperature,
                self.temperature.is_finite() && self.temperature >= 0.0,
                "0 (always the likeliest token) or a positive number",
            ),
            ("top-p", self.top_p, from_0_to_1(self.top_p), "from 0 to 1"),
            ("min-p", self.min_p, from_0_to_1(self.min_p), "from 0 to 1"),
            (
                "repeat penalty",
                self.repeat_penalty,
                self.repeat_penalty.is_finite() && self.repeat_penalty > 0.0,
                "a positive number (1 for no penalty)",
            ),
        ];
        match checks.into_iter().find(|(_, _, good, _)| !good) {
            Some((name, value, _, range)) => Err(SamplerError::Option { name, value, range }),
            None => Ok(()),
        }
    }
}

/// Why nothing can be drawn.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum SamplerError {
    /// An option out of its range.
    #[error("{name} is {value}, it must be {range}")]
    Option {
        /// Its name.
        name: &'static str,
        /// What was given.
        value: f32,
        /// What it may be.
        range: &'static str,
    },
    /// A logit that is no number, from a damaged model or a fault in the computation.
    #[error("the logit of token {id} is {value}")]
    NotFinite {
        /// The first such token.
        id: TokenId,
        /// Its logit.
        value: f32,
    },
    /// No logits at all.
    #[error("there are no logits to sample from")]
    NoLogits,
}

/// Where a sampler stands, to go on later with the same draws.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerState {
    seed: u64,
    /// 32-bit words taken from the generator.
    words: u64,
    recent: Vec<TokenId>,
}

/// Draws tokens; deterministic for a seed.
#[derive(Debug)]
pub struct Sampler {
    options: SamplerOptions,
    seed: u64,
    rng: ChaCha8Rng,
    recent: VecDeque<TokenId>,
    /// Logits after the repeat penalty.
    penalized: Vec<f32>,
    candidates: Vec<Candidate>,
}

/// A token that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    id: u32,
    logit: f32,
}

impl Sampler {
    /// Starts with no recent ids.
    ///
    /// # Errors
    /// [`SamplerError::Option`].
    pub fn new(options: SamplerOptions) -> Result<Self, SamplerError> {
        options.validate()?;
        let seed = options.seed.unwrap_or_else(rand::random);
        Ok(Self {
            options,
            seed,
            rng: ChaCha8Rng::seed_from_u64(seed),
            recent: VecDeque::new(),
            penalized: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// Makes the end of `ids` the recent ids: what is in the context before the answer.
    pub fn remember(&mut self, ids: &[TokenId]) {
        self.recent.clear();
        self.recent.extend(&ids[ids.len().saturating_sub(self.options.repeat_last_n)..]);
    }

    /// Appends an id to the recent ids.
    pub fn accept(&mut self, id: TokenId) {
        self.recent.push_back(id);
        if self.recent.len() > self.options.repeat_last_n {
            self.recent.pop_front();
        }
    }

    /// Where the sampler stands.
    pub fn state(&self) -> SamplerState {
        let recent = self.recent.iter().copied().collect();
        SamplerState { seed: self.seed, words: self.rng.get_word_pos() as u64, recent }
    }

    /// Goes on where `state` was taken.
    pub fn restore(&mut self, state: SamplerState) {
        self.seed = state.seed;
        self.rng = ChaCha8Rng::seed_from_u64(state.seed);
        self.rng.set_word_pos(u128::from(state.words));
        self.remember(&state.recent);
    }

    /// The next token from the logits of the last position, one per token of the vocabulary. Does
    /// not [`Self::accept`] it.
    ///
    /// # Errors
    /// [`SamplerError::NotFinite`], [`SamplerError::NoLogits`].
    pub fn sample(&mut self, logits: &[f32]) -> Result<TokenId, SamplerError> {
        let mut penalized = std::mem::take(&mut self.penalized);
        let logits = if self.options.repeat_penalty != 1.0 && !self.recent.is_empty() {
            penalized.clear();
            penalized.extend_from_slice(logits);
            self.penalize(&mut penalized);
            penalized.as_slice()
        } else {
            logits
        };
        let best = greatest(logits);
        let drawn = best.map(|best| match self.options.temperature {
            0.0 => best.id,
            _ => self.draw(logits, best.logit),
        });
        self.penalized = penalized;
        drawn.map(TokenId)
    }

    fn penalize(&self, logits: &mut [f32]) {
        let mut recent: Vec<TokenId> = self.recent.iter().copied().collect();
        recent.sort_unstable();
        recent.dedup();
        for id in recent {
            if let Some(logit) = logits.get_mut(id.0 as usize) {
                let penalty = self.options.repeat_penalty;
                *logit = if *logit < 0.0 { *logit * penalty } else { *logit / penalty };
            }
        }
    }

    fn draw(&mut self, logits: &[f32], greatest: f32) -> u32 {
        let mut candidates = std::mem::take(&mut self.candidates);
        let weight = self.weight(greatest);
        self.options.filter(logits, &weight, &mut candidates);
        let total: f64 = candidates.iter().map(|candidate| weight(candidate.logit)).sum();
        let mut left = self.rng.random::<f64>() * total;
        let drawn = candidates.iter().find(|candidate| {
            left -= weight(candidate.logit);
            left < 0.0
        });
        // Rounding can leave nothing over.
        let id = drawn.or(candidates.last()).map_or(0, |candidate| candidate.id);
        self.candidates = candidates;
        id
    }

    /// The weight of a logit: its probability as a part of the greatest one.
    fn weight(&self, greatest: f32) -> impl Fn(f32) -> f64 + use<> {
        let temperature = f64::from(self.options.temperature);
        // Differences first: no logit and no temperature overflows.
        move |logit| ((f64::from(logit) - f64::from(greatest)) / temperature).exp()
    }
}

impl SamplerOptions {
    /// The tokens that top-k, top-p and min-p leave.
    fn filter(&self, logits: &[f32], weight: impl Fn(f32) -> f64, kept: &mut Vec<Candidate>) {
        top_k(logits, self.top_k, kept);
        if self.top_p < 1.0 {
            top_p(kept, f64::from(self.top_p), &weight);
        }
        if self.min_p > 0.0 {
            let least = f64::from(self.min_p);
            kept.retain(|candidate| weight(candidate.logit) >= least);
        }
    }
}

/// The greatest logit, of equal ones that with the lowest id, in one pass that also checks that
/// all are finite.
fn greatest(logits: &[f32]) -> Result<Candidate, SamplerError> {
    const BLOCK: usize = 1024;
    let mut best = Candidate { id: 0, logit: f32::NEG_INFINITY };
    for (start, block) in (0..).step_by(BLOCK).zip(logits.chunks(BLOCK)) {
        // As integers that order like the floats: whole vectors at a time.
        let (max, size) = block.iter().fold((i32::MIN, 0), |(max, size), x| {
            let bits = x.to_bits();
            (max.max(ordered(bits)), size.max(bits & !SIGN))
        });
        if size >= f32::INFINITY.to_bits() {
            let at = block.iter().position(|x| !x.is_finite()).unwrap_or_default();
            return Err(SamplerError::NotFinite {
                id: TokenId(start + at as u32),
                value: block[at],
            });
        }
        let max = f32::from_bits(ordered(max as u32) as u32);
        if max > best.logit {
            let at = block.iter().position(|&x| x == max).unwrap_or_default();
            best = Candidate { id: start + at as u32, logit: max };
        }
    }
    if logits.is_empty() { Err(SamplerError::NoLogits) } else { Ok(best) }
}

const SIGN: u32 = 1 << 31;

/// The bits of a float to an integer of the same order, and back.
fn ordered(bits: u32) -> i32 {
    let sign = (bits as i32 >> 31) as u32;
    (bits ^ (sign & !SIGN)) as i32
}

/// Every token whose logit is not below the k-th greatest, in the order of ids; all for k = 0.
///
/// One pass: a token below the k-th greatest so far is out at once; whenever the rest has doubled,
/// the bar is raised.
fn top_k(logits: &[f32], k: usize, kept: &mut Vec<Candidate>) {
    kept.clear();
    let all = logits.iter().zip(0..).map(|(&logit, id)| Candidate { id, logit });
    if k == 0 || k >= logits.len() {
        kept.extend(all);
        return;
    }
    let mut bar = f32::NEG_INFINITY;
    let mut room = (2 * k).max(256);
    for candidate in all {
        if candidate.logit < bar {
            continue;
        }
        kept.push(candidate);
        if kept.len() == room {
            bar = raise(kept, k);
            room = (2 * kept.len()).max(room);
        }
    }
    if kept.len() > k {
        raise(kept, k);
    }
    kept.sort_unstable_by_key(|candidate| candidate.id);
}

/// Drops what is below the k-th greatest and returns that. At least k tokens are there.
fn raise(kept: &mut Vec<Candidate>, k: usize) -> f32 {
    let (_, kth, _) = kept.select_nth_unstable_by(k - 1, |a, b| b.logit.total_cmp(&a.logit));
    let bar = kth.logit;
    kept.retain(|candidate| candidate.logit >= bar);
    bar
}

/// Keeps the likeliest tokens until they hold `p` of the weight. Sorts no more of them than needed.
fn top_p(candidates: &mut Vec<Candidate>, p: f64, weight: impl Fn(f32) -> f64) {
    let total: f64 = candidates.iter().map(|candidate| weight(candidate.logit)).sum();
    let likelier = |a: &Candidate, b: &Candidate| b.logit.total_cmp(&a.logit).then(b.id.cmp(&a.id));
    let (mut sorted, mut above) = (0, 0.0);
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let step = (sorted + 256).min(rest.len());
        if step < rest.len() {
            rest.select_nth_unstable_by(step, likelier);
        }
        rest[..step].sort_unstable_by(likelier);
        for (at, candidate) in rest[..step].iter().enumerate() {
            if above >= p * total && sorted + at > 0 {
                candidates.truncate(sorted + at);
                return;
            }
            above += weight(candidate.logit);
        }
        sorted += step;
    }
}

#[cfg(test)]
mod tests;
