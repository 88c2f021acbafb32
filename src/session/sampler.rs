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
mod tests {
    use super::*;

    const LOGITS: [f32; 16] =
        [1.5, -0.25, 3.0, 2.0, 2.0, -4.0, 0.0, 2.75, 1.0, -1.5, 2.0, 0.5, -30.0, 2.5, 1.25, -0.75];

    /// Temperature, top-k, top-p, min-p, repeat penalty, recent ids → id:probability of the tokens that
    /// stay. Made with transformers 5.23.0 on `LOGITS`: RepetitionPenaltyLogitsProcessor,
    /// TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper (each where it is
    /// on), then softmax in f64, rounded to six places.
    const REFERENCE: &str = "
        1.0 0 1.0 0.0 1.0 - 0:0.052782 1:0.009172 2:0.236552 3:0.087023 4:0.087023 5:0.000216
            6:0.011777 7:0.184227 8:0.032014 9:0.002628 10:0.087023 11:0.019417 12:0.000000
            13:0.143476 14:0.041107 15:0.005563;
        1.0 3 1.0 0.0 1.0 - 2:0.419229 7:0.326496 13:0.254275;
        1.0 4 1.0 0.0 1.0 - 2:0.286618 3:0.105441 4:0.105441 7:0.223218 10:0.105441 13:0.173842;
        1.0 5 1.0 0.0 1.0 - 2:0.286618 3:0.105441 4:0.105441 7:0.223218 10:0.105441 13:0.173842;
        0.7 8 1.0 0.0 1.0 - 0:0.037753 2:0.321795 3:0.077118 4:0.077118 7:0.225151 10:0.077118
            13:0.157532 14:0.026415;
        1.0 0 0.9 0.0 1.0 - 0:0.057421 2:0.257342 3:0.094671 4:0.094671 7:0.200418 10:0.094671
            13:0.156086 14:0.044719;
        1.0 0 0.5 0.0 1.0 - 2:0.419229 7:0.326496 13:0.254275;
        1.0 0 0.05 0.0 1.0 - 2:1.000000;
        1.5 0 0.75 0.0 1.0 - 0:0.082279 2:0.223656 3:0.114829 4:0.114829 7:0.189321 10:0.114829
            13:0.160257;
        1.0 0 1.0 0.3 1.0 - 2:0.286618 3:0.105441 4:0.105441 7:0.223218 10:0.105441 13:0.173842;
        0.5 0 1.0 0.5 1.0 - 2:0.622459 7:0.377541;
        1.3 6 0.8 0.0 1.0 - 2:0.291332 4:0.134995 7:0.240365 10:0.134995 13:0.198314;
        1.0 64 0.95 0.0 1.0 - 0:0.055488 2:0.248681 3:0.091485 4:0.091485 7:0.193673 8:0.033655
            10:0.091485 13:0.150833 14:0.043214;
        2.0 10 0.9 0.4 1.0 - 0:0.087962 2:0.186216 3:0.112945 4:0.112945 7:0.164335 10:0.112945
            13:0.145025 14:0.077626;
        1.0 5 1.0 0.0 1.3 2,7,7,5,6 2:0.190748 3:0.140227 4:0.140227 7:0.157377 10:0.140227
            13:0.231195;
        1.0 0 0.85 0.0 2.0 3,12,0,13 2:0.333618 4:0.122731 7:0.259822 8:0.045150 10:0.122731
            13:0.057974 14:0.057974;
        1.0 0 1.0 0.2 0.5 1,8 0:0.054689 2:0.245099 3:0.090167 4:0.090167 7:0.190884 8:0.090167
            10:0.090167 13:0.148660;
        1.0 0 0.0 0.0 1.0 - 2:1.000000;
        1.0 0 0.62 0.0 1.0 - 2:0.363212 7:0.282870 10:0.133618 13:0.220299;
    ";

    fn off() -> SamplerOptions {
        SamplerOptions { top_k: 0, top_p: 1.0, seed: Some(1), ..Default::default() }
    }

    /// The tokens that may be drawn and their probabilities, by id.
    fn distribution(sampler: &mut Sampler, logits: &[f32]) -> Vec<(u32, f64)> {
        let mut logits = logits.to_vec();
        sampler.penalize(&mut logits);
        let weight = sampler.weight(greatest(&logits).unwrap().logit);
        let mut kept = Vec::new();
        sampler.options.filter(&logits, &weight, &mut kept);
        let total: f64 = kept.iter().map(|candidate| weight(candidate.logit)).sum();
        let mut by_id: Vec<_> = kept.iter().map(|c| (c.id, weight(c.logit) / total)).collect();
        by_id.sort_by_key(|(id, _)| *id);
        by_id
    }

    fn ids(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().copied().map(TokenId).collect()
    }

    #[test]
    fn the_distribution_is_the_reference_s() {
        for row in REFERENCE.split_terminator(';').map(str::trim).filter(|row| !row.is_empty()) {
            let words: Vec<&str> = row.split_whitespace().collect();
            let number = |i: usize| words[i].parse().unwrap();
            let options = SamplerOptions {
                temperature: number(0),
                top_k: words[1].parse().unwrap(),
                top_p: number(2),
                min_p: number(3),
                repeat_penalty: number(4),
                ..off()
            };
            let recent = words[5].split(',').filter_map(|id| id.parse().ok()).map(TokenId);
            let expected = words[6..].iter().map(|word| {
                let (id, probability) = word.split_once(':').unwrap();
                (id.parse::<u32>().unwrap(), probability.parse::<f64>().unwrap())
            });

            let mut sampler = Sampler::new(options).unwrap();
            sampler.remember(&recent.collect::<Vec<_>>());
            let found = distribution(&mut sampler, &LOGITS);
            assert_eq!(found.len(), expected.len(), "{row}: {found:?}");
            for (a, b) in found.iter().zip(expected) {
                assert!(a.0 == b.0 && (a.1 - b.1).abs() < 2e-6, "{row}: {found:?}");
            }
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        const DRAWS: usize = 40_000;
        let options = SamplerOptions { temperature: 1.3, top_k: 6, top_p: 0.8, ..off() };
        let mut sampler = Sampler::new(options).unwrap();
        let mut counts = [0_usize; LOGITS.len()];
        for _ in 0..DRAWS {
            counts[sampler.sample(&LOGITS).unwrap().0 as usize] += 1;
        }
        let expected = distribution(&mut sampler, &LOGITS);
        assert_eq!(counts.iter().filter(|count| **count > 0).count(), expected.len());
        for (id, p) in expected {
            let part = counts[id as usize] as f64 / DRAWS as f64;
            // Five standard deviations.
            assert!(
                (part - p).abs() < 5.0 * (p * (1.0 - p) / DRAWS as f64).sqrt(),
                "{id}: {part} {p}"
            );
        }
    }

    #[test]
    fn a_large_vocabulary_is_cut_like_a_sorted_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        // Steps of 1/64 make many ties.
        let logits: Vec<f32> =
            (0..50_000).map(|_| (rng.random::<f32>() * 640.0).round() / 64.0).collect();
        let mut order: Vec<(f32, u32)> = logits.iter().copied().zip(0..).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        for k in [1, 2, 64, 300, 49_999, 50_000, 60_000] {
            let bar = order[k.min(order.len()) - 1].0;
            let mut kept = Vec::new();
            top_k(&logits, k, &mut kept);
            let expected = logits.iter().zip(0..).filter(|(l, _)| **l >= bar).map(|(_, id)| id);
            assert!(kept.iter().map(|c| c.id).eq(expected), "k {k}");
        }
        for p in [0.0, 0.001, 0.3, 0.95, 0.999_999] {
            let weight = |logit: f32| f64::from(logit - 10.0).exp();
            let total: f64 = logits.iter().map(|&l| weight(l)).sum();
            let mut above = 0.0;
            let expected: Vec<u32> = order
                .iter()
                .enumerate()
                .take_while(|(at, (logit, _))| {
                    let stays = *at == 0 || above < p * total;
                    above += weight(*logit);
                    stays
                })
                .map(|(_, (_, id))| *id)
                .collect();
            let mut kept = Vec::new();
            top_k(&logits, 0, &mut kept);
            top_p(&mut kept, p, weight);
            assert_eq!(kept.iter().map(|c| c.id).collect::<Vec<_>>(), expected, "p {p}");
        }
    }

    #[test]
    fn greedy_takes_the_lowest_of_the_greatest() {
        let mut sampler = Sampler::new(SamplerOptions { temperature: 0.0, ..off() }).unwrap();
        let mut logits = vec![-5.0; 5000];
        assert_eq!(sampler.sample(&logits), Ok(TokenId(0)));
        (logits[1500], logits[1501], logits[4000]) = (-0.0, 0.0, 0.0);
        assert_eq!(sampler.sample(&logits), Ok(TokenId(1500)));
        logits[4999] = 0.25;
        assert_eq!(sampler.sample(&logits), Ok(TokenId(4999)));
    }

    #[test]
    fn greedy_feels_the_repeat_penalty() {
        let options =
            SamplerOptions { temperature: 0.0, repeat_penalty: 2.0, repeat_last_n: 2, ..off() };
        let mut sampler = Sampler::new(options).unwrap();
        let logits = [4.0, 3.0, 2.5, -1.0];
        // An id past the logits has none to change.
        sampler.remember(&ids(&[2, 0, 99]));
        assert_eq!(sampler.sample(&logits), Ok(TokenId(1)));
        sampler.accept(TokenId(1));
        assert_eq!(sampler.sample(&logits), Ok(TokenId(0)));
        sampler.accept(TokenId(0));
        assert_eq!(sampler.sample(&logits), Ok(TokenId(2)));
    }

    #[test]
    fn a_tiny_temperature_is_greedy() {
        let options = SamplerOptions { temperature: f32::MIN_POSITIVE, ..off() };
        let mut sampler = Sampler::new(options).unwrap();
        for _ in 0..100 {
            assert_eq!(sampler.sample(&LOGITS), Ok(TokenId(2)));
        }
    }

    #[test]
    fn what_is_not_finite_is_named() {
        for temperature in [0.0, 1.0] {
            let mut sampler = Sampler::new(SamplerOptions { temperature, ..off() }).unwrap();
            for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
                let mut logits = vec![1.0; 3000];
                (logits[2500], logits[2900]) = (value, f32::NAN);
                match sampler.sample(&logits) {
                    Err(SamplerError::NotFinite { id, value: found }) => {
                        assert_eq!((id, found.to_bits()), (TokenId(2500), value.to_bits()));
                    }
                    other => panic!("{value}: {other:?}"),
                }
            }
            assert_eq!(sampler.sample(&[]), Err(SamplerError::NoLogits));
        }
    }

    #[test]
    fn a_restored_sampler_goes_on_as_if_never_stopped() {
        let options = SamplerOptions { repeat_penalty: 1.1, repeat_last_n: 3, ..off() };
        let mut sampler = Sampler::new(options.clone()).unwrap();
        let draw = |sampler: &mut Sampler| {
            let id = sampler.sample(&LOGITS).unwrap();
            sampler.accept(id);
            id
        };
        for _ in 0..17 {
            draw(&mut sampler);
        }
        let saved = serde_json::to_string(&sampler.state()).unwrap();
        let expected: Vec<_> = (0..50).map(|_| draw(&mut sampler)).collect();
        let mut other = Sampler::new(SamplerOptions { seed: None, ..options.clone() }).unwrap();
        other.restore(serde_json::from_str(&saved).unwrap());
        assert_eq!((0..50).map(|_| draw(&mut other)).collect::<Vec<_>>(), expected);

        let again = |seed| {
            let mut sampler = Sampler::new(SamplerOptions { seed, ..options.clone() }).unwrap();
            (0..50).map(|_| draw(&mut sampler)).collect::<Vec<_>>()
        };
        assert_eq!(again(Some(1)), again(Some(1)));
        assert_ne!(again(Some(1)), again(Some(2)));
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let wrong = [
            SamplerOptions { temperature: -0.5, ..off() },
            SamplerOptions { temperature: f32::NAN, ..off() },
            SamplerOptions { top_p: 1.5, ..off() },
            SamplerOptions { min_p: -0.1, ..off() },
            SamplerOptions { repeat_penalty: 0.0, ..off() },
        ];
        let messages = wrong.map(|options| Sampler::new(options).unwrap_err().to_string());
        assert_eq!(
            messages,
            [
                "temperature is -0.5, it must be 0 (always the likeliest token) or a positive number",
                "temperature is NaN, it must be 0 (always the likeliest token) or a positive number",
                "top-p is 1.5, it must be from 0 to 1",
                "min-p is -0.1, it must be from 0 to 1",
                "repeat penalty is 0, it must be a positive number (1 for no penalty)",
            ]
        );
    }
}
