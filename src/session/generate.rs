//! One answer: sampled ids → whole characters → stop strings → the listener.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::cache::ReadPrompt;
use super::conversation::ConversationOptions;
use super::prompt::Language;
use super::stop::StopStrings;
use crate::tokenizer::{DecodeStream, TokenId};

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

/// Who hears an answer while it is made.
pub(super) type Listener<'a> = dyn FnMut(Event<'_>) -> ControlFlow<()> + 'a;

/// An answer in the making.
pub(super) struct Answer<'a> {
    language: &'a Language,
    max_tokens: Option<usize>,
    ignore_eos: bool,
    stream: DecodeStream,
    stops: StopStrings,
    text: String,
    ids: Vec<TokenId>,
    prompt: usize,
    cached: usize,
    started: Instant,
    first_token: Option<Instant>,
    timings: ReplyTimings,
}

impl<'a> Answer<'a> {
    /// An answer that began at `started`.
    pub fn new(language: &'a Language, options: &ConversationOptions, started: Instant) -> Self {
        Self {
            language,
            max_tokens: options.max_tokens,
            ignore_eos: options.ignore_eos,
            stream: language.tokenizer().stream(),
            stops: StopStrings::new(options.stops.clone()),
            text: String::new(),
            ids: Vec::new(),
            prompt: 0,
            cached: 0,
            started,
            first_token: None,
            timings: ReplyTimings::default(),
        }
    }

    /// Every id so far.
    pub fn ids(&self) -> &[TokenId] {
        &self.ids
    }

    /// Whether no token may be sampled any more.
    pub fn is_full(&self) -> bool {
        self.max_tokens.is_some_and(|most| self.ids.len() >= most)
    }

    /// Counts a prompt that took `time` to read; only the first one is the answer's prompt.
    pub fn count_prompt(&mut self, tokens: usize, read: &ReadPrompt, time: Duration) {
        if self.prompt == 0 {
            self.prompt = tokens;
            self.cached = read.cached;
        }
        self.timings.prefilled += read.read;
        self.timings.prompt += time;
    }

    /// Takes a sampled id; tells why the answer ends with it, if it does.
    pub fn take(&mut self, id: TokenId, listener: &mut Listener<'_>) -> Option<Finish> {
        self.first_token.get_or_insert_with(Instant::now);
        self.ids.push(id);
        let tokenizer = self.language.tokenizer();
        if !self.ignore_eos && tokenizer.is_end(id) {
            let rest = self.flush();
            return Some(self.emit(&rest, listener).unwrap_or(Finish::Stop));
        }
        let text = self.stream.push(tokenizer, id);
        let released = self.stops.push(&text);
        if let Some(finish) = self.emit(&released, listener) {
            return Some(finish);
        }
        if self.stops.stopped() {
            return Some(Finish::Stop);
        }
        self.is_full().then_some(Finish::Length)
    }

    /// Releases what was held back: half a character, the beginning of a stop string.
    fn flush(&mut self) -> String {
        if self.stops.stopped() {
            return String::new();
        }
        let half = self.stream.finish();
        let mut text = self.stops.push(&half);
        text.push_str(&self.stops.finish());
        text
    }

    fn emit(&mut self, text: &str, listener: &mut Listener<'_>) -> Option<Finish> {
        if text.is_empty() {
            return None;
        }
        self.text.push_str(text);
        listener(Event::Text(text)).is_break().then_some(Finish::Interrupted)
    }

    /// The answer, ended.
    pub fn end(mut self, finish: Finish, listener: &mut Listener<'_>) -> Reply {
        let rest = self.flush();
        self.emit(&rest, listener);
        let now = Instant::now();
        self.timings.first_token = self.first_token.map(|first| first - self.started);
        self.timings.decode = self.first_token.map_or(Duration::ZERO, |first| now - first);
        self.timings.total = now - self.started;
        let (prompt, cached, generated) = (self.prompt, self.cached, self.ids.len());
        Reply {
            text: self.text,
            ids: self.ids,
            tokens: TokenCounts { prompt, cached, generated },
            finish,
            timings: self.timings,
        }
    }
}
