//! The loop that answers: logits → sampler → stop conditions → text.

use std::time::Duration;

use super::TokenId;

/// What a caller hears while an answer is made.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The next words of the answer: whole characters, never empty.
    Text(&'a str),
    /// The prompt is being read: `done` of `total` tokens that were not in the cache.
    Prefill {
        /// Tokens read.
        done: usize,
        /// Tokens to be read.
        total: usize,
    },
    /// The context was full: the oldest turns were dropped from the conversation.
    TurnsDropped {
        /// Turns (a question and its answer) that are gone.
        turns: usize,
        /// Tokens of what stayed.
        kept: usize,
        /// Positions of the context.
        capacity: usize,
    },
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model ended its turn, or a stop string came.
    Stop,
    /// `max_tokens` were generated.
    Length,
    /// The context is full and nothing may or can be dropped.
    Context,
    /// The caller or the interrupt flag ended it. What was said is kept.
    Interrupted,
}

/// Tokens of one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TokenCounts {
    /// The whole prompt, `cached` included.
    pub prompt: usize,
    /// Prompt tokens that the cache already held.
    pub cached: usize,
    /// Sampled tokens, one that ended the answer included.
    pub generated: usize,
}

/// Wall time of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReplyTimings {
    /// Tokens that were prefilled (`prompt - cached`, and what was read again after turns
    /// were dropped).
    pub prefilled: usize,
    /// Time of the prefill.
    pub prompt: Duration,
    /// Start of the call to the first sampled token; `None` without one.
    pub first_token: Option<Duration>,
    /// First sampled token to the last.
    pub decode: Duration,
    /// The whole call.
    pub total: Duration,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// All text, as it was streamed.
    pub text: String,
    /// Every sampled id in order, one that ended the answer included.
    pub ids: Vec<TokenId>,
    /// How many tokens it took.
    pub tokens: TokenCounts,
    /// Why it ended.
    pub finish: Finish,
    /// How long it took.
    pub timings: ReplyTimings,
}
