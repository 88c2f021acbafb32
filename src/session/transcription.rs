//! Speech to text: one clip's soft tokens and the request in, its words out.
//!
//! ```text
//! <bos><start_of_turn>user\n   sound, request<end_of_turn>\n<start_of_turn>model\n   words
//! kept from clip to clip       read for each clip
//! ```
//!
//! An answer that repeats itself, or does not end within what can be said in the time, is made once
//! more with other settings; if that fails too, the first one is cut where it begins to repeat itself.

mod repetition;
mod request;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use self::repetition::{Repetition, Tail};
use super::cache::{Cache, ReadPrompt};
use super::conversation::ConversationOptions;
use super::decode::{Decode, EngineDecoder};
use super::engine::Engine;
use super::error::Error;
use super::generate::{Answer, Event, Finish, Reply, TokenCounts};
use super::media::{PromptToken, SoftTokens};
use super::message::{Message, Part, Role};
use super::prompt::Language;
use super::sampler::{Sampler, SamplerOptions};
use crate::model::StepError;
use crate::tokenizer::TokenId;

pub use self::request::Request;

/// Tokens that may be made of a second of speech, and beside that of any clip.
const TOKENS_A_SECOND: f64 = 20.0;
const TOKENS_A_CLIP: usize = 32;

/// How a clip is heard again after a run-away.
fn second_try(options: &SamplerOptions) -> SamplerOptions {
    let (temperature, repeat_penalty) = (0.4, 1.1);
    SamplerOptions { temperature, repeat_penalty, seed: Some(0), ..options.clone() }
}

/// What a caller hears while a clip is transcribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing<'a> {
    /// The next words: whole characters. Those that may belong to a run-away come late.
    Words(&'a str),
    /// What came so far repeats itself; the clip is heard again, from its beginning. No more words
    /// come of it: they stand in the passage.
    Again,
}

/// Who hears the words of a clip.
pub type Listener<'a> = dyn FnMut(Hearing<'_>) -> ControlFlow<()> + 'a;

/// What a clip says.
#[derive(Clone, Debug, PartialEq)]
pub struct Passage {
    /// Its words, or their translation.
    pub text: String,
    /// What a translation was made from.
    pub transcription: Option<String>,
    /// Mean of the logarithms of the probabilities of all tokens, the end's included, before
    /// temperature and penalties; `None` without a token.
    pub avg_logprob: Option<f64>,
    /// The text is not whole: it repeated itself or did not end.
    pub truncated: bool,
    /// It was heard twice.
    pub again: bool,
    /// The interrupt flag or the listener ended it.
    pub interrupted: bool,
    /// Of the try that counts.
    pub tokens: TokenCounts,
    /// Of both tries.
    pub timings: PassageTimings,
}

/// Where a clip's time went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PassageTimings {
    /// Prompt tokens that were read.
    pub prefilled: usize,
    /// Prompt tokens that the cache held.
    pub cached: usize,
    /// Time of the reading.
    pub prompt: Duration,
    /// Tokens that were made.
    pub generated: usize,
    /// Time of their making.
    pub decode: Duration,
}

/// Transcribes clips, one after the other.
pub struct Transcriber {
    language: Arc<Language>,
    /// The model's file, for messages.
    file: PathBuf,
    cache: Cache,
    sampler: Sampler,
    options: ConversationOptions,
    request: Request,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Whole,
    /// So many of its ids are good.
    RunAway(usize),
    /// At the caller's own limit, or that of the context.
    Limit,
    Interrupted,
}

/// One hearing of a clip.
struct Try {
    ended: Ended,
    text: String,
    ids: Vec<TokenId>,
    logprobs: Vec<f64>,
    tokens: TokenCounts,
}

impl Transcriber {
    /// With a cache of its own. Of the options count decoder, sampler, stops and the most tokens of
    /// a clip (`None`: what its length allows).
    ///
    /// # Errors
    /// No memory for the cache, or options out of range (named).
    pub fn new(
        engine: Arc<Engine>,
        options: ConversationOptions,
        request: Request,
    ) -> Result<Self, Error> {
        let file = engine.path().to_path_buf();
        let decoder = EngineDecoder::new(engine.clone(), &options.decoder)
            .map_err(|error| Error::Step { model: file.clone(), error })?;
        Self::with_decoder(engine.language().clone(), file, Box::new(decoder), options, request)
    }

    fn with_decoder(
        language: Arc<Language>,
        file: PathBuf,
        decoder: Box<dyn Decode>,
        options: ConversationOptions,
        request: Request,
    ) -> Result<Self, Error> {
        let cache = Cache::new(decoder, options.decoder.batch);
        let sampler = Sampler::new(options.sampler.clone())?;
        Ok(Self { language, file, cache, sampler, options, request })
    }

    /// The model.
    pub fn engine(&self) -> &Arc<Engine> {
        self.cache.decoder().engine()
    }

    /// A flag that ends the work when it becomes true. The caller resets it.
    pub fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.cache.set_interrupt(flag);
    }

    /// The words of a clip of so many seconds.
    ///
    /// # Errors
    /// A prompt longer than the context, a template that refuses, a failure of the model.
    pub fn transcribe(
        &mut self,
        sound: Arc<SoftTokens>,
        seconds: f64,
        listener: &mut Listener<'_>,
    ) -> Result<Passage, Error> {
        let prompt = self.prompt(sound)?;
        let (tokens, capacity) = (prompt.len(), self.cache.capacity());
        if tokens >= capacity {
            let trained = self.cache.decoder().trained_context();
            return Err(Error::PromptTooLong { tokens, capacity, trained });
        }
        let own = self.options.max_tokens;
        let budget = own.unwrap_or_else(|| self.budget(seconds)).min(capacity - tokens);
        self.options.max_tokens = Some(budget);
        let passage = self.hear_twice(&prompt, own.is_some_and(|own| own == budget), listener);
        self.options.max_tokens = own;
        passage
    }

    /// `limited`: the limit of tokens is the caller's own, and reaching it no reason to try again.
    fn hear_twice(
        &mut self,
        prompt: &[PromptToken],
        limited: bool,
        listener: &mut Listener<'_>,
    ) -> Result<Passage, Error> {
        let mut timings = PassageTimings::default();
        let mut first = self.hear(prompt, &mut timings, listener)?;
        let good = match first.ended {
            Ended::RunAway(good) => good,
            Ended::Limit if !limited => first.ids.len(),
            _ => return Ok(self.passage(first, false, timings)),
        };
        if listener(Hearing::Again).is_break() {
            first.ended = Ended::Interrupted;
            return Ok(self.passage(first, false, timings));
        }
        let other = Sampler::new(second_try(&self.options.sampler))?;
        let usual = std::mem::replace(&mut self.sampler, other);
        let second = self.hear(prompt, &mut timings, &mut |_| ControlFlow::Continue(()));
        self.sampler = usual;
        let second = second?;
        Ok(match second.ended {
            Ended::RunAway(_) | Ended::Limit => self.passage(self.cut(first, good), true, timings),
            Ended::Whole | Ended::Interrupted => self.passage(second, true, timings),
        })
    }

    fn prompt(&self, media: Arc<SoftTokens>) -> Result<Vec<PromptToken>, Error> {
        let content = vec![Part::Audio { media }, Part::Text { text: self.request.text() }];
        Ok(self.language.conversation(&[Message { role: Role::User, content }])?)
    }

    /// Tokens that can be said in so many seconds; a translation follows a transcription.
    fn budget(&self, seconds: f64) -> usize {
        let once = (seconds.max(0.0) * TOKENS_A_SECOND).ceil() as usize + TOKENS_A_CLIP;
        if self.request.translate.is_some() { 2 * once } else { once }
    }

    fn hear(
        &mut self,
        prompt: &[PromptToken],
        timings: &mut PassageTimings,
        listener: &mut Listener<'_>,
    ) -> Result<Try, Error> {
        let language = self.language.clone();
        let options = self.options.clone();
        let mut answer = Answer::new(&language, &options, Instant::now());
        let mut logits = self.read(prompt, &mut answer)?;
        let ids: Vec<TokenId> = prompt.iter().map(|token| token.id).collect();
        self.sampler.remember(&ids);
        let (mut repetition, mut logprobs) = (Repetition::new(), Vec::new());
        let mut words = Words::new(listener);
        let ended = loop {
            let Some(current) = logits else { break Ended::Interrupted };
            if answer.is_full() {
                break Ended::Limit;
            }
            let id = self.sampler.sample(&current)?;
            self.sampler.accept(id);
            logprobs.push(logprob(&current, id));
            let tail = repetition.push(id);
            words.held = tail != Tail::Plain;
            let finish = answer.take(id, &mut |event| words.hear(event));
            match (finish, tail) {
                (Some(Finish::Stop), _) => break Ended::Whole,
                (Some(Finish::Interrupted), _) => break Ended::Interrupted,
                (_, Tail::RunAway { first }) => break Ended::RunAway(first),
                (Some(Finish::Length | Finish::Context), _) => break Ended::Limit,
                (None, _) => {}
            }
            if self.cache.interrupted() {
                break Ended::Interrupted;
            }
            logits = self.cache.advance(id).map_err(|error| self.step_error(error))?;
        };
        words.held = matches!(ended, Ended::RunAway(_));
        let reply = answer.end(Finish::Stop, &mut |event| words.hear(event));
        let _ = words.release();
        timings.count(&reply);
        Ok(Try { ended, text: reply.text, ids: reply.ids, logprobs, tokens: reply.tokens })
    }

    /// Reads the prompt. What stands before the sound is read on its own the first time, so that
    /// the cache can come back to it for every clip.
    fn read(
        &mut self,
        prompt: &[PromptToken],
        answer: &mut Answer<'_>,
    ) -> Result<Option<Vec<f32>>, Error> {
        let started = Instant::now();
        self.cache.decoder().prepare(prompt)?;
        let before = prompt.iter().take_while(|token| token.soft.is_none()).count();
        let mut alone = 0;
        if self.cache.len() == 0 && before > 0 {
            let read = self.cache.hold(&prompt[..before]);
            alone = read.map_err(|error| self.step_error(error))?;
        }
        let read = self
            .cache
            .read(prompt, &mut |_| ControlFlow::Continue(()))
            .map_err(|error| self.step_error(error))?;
        let (cached, read, logits) = (read.cached - alone, read.read + alone, read.logits);
        let read = ReadPrompt { cached, read, logits };
        answer.count_prompt(prompt.len(), &read, started.elapsed());
        Ok(read.logits)
    }

    /// The first `good` ids of a try that did not end.
    fn cut(&self, mut heard: Try, good: usize) -> Try {
        heard.ids.truncate(good);
        heard.logprobs.truncate(good);
        let tokenizer = self.language.tokenizer();
        let mut stream = tokenizer.stream();
        heard.text = heard.ids.iter().map(|&id| stream.push(tokenizer, id)).collect();
        heard.text.push_str(&stream.finish());
        heard.tokens.generated = good;
        heard
    }

    fn passage(&self, heard: Try, again: bool, timings: PassageTimings) -> Passage {
        let (text, transcription) = self.request.split(&heard.text);
        let count = heard.logprobs.len();
        Passage {
            text: one_line(text),
            transcription: transcription.map(one_line),
            avg_logprob: (count > 0).then(|| heard.logprobs.iter().sum::<f64>() / count as f64),
            truncated: matches!(heard.ended, Ended::RunAway(_) | Ended::Limit),
            again,
            interrupted: heard.ended == Ended::Interrupted,
            tokens: heard.tokens,
            timings,
        }
    }

    fn step_error(&self, error: StepError) -> Error {
        Error::Step { model: self.file.clone(), error }
    }
}

impl PassageTimings {
    fn count(&mut self, reply: &Reply) {
        self.prefilled += reply.timings.prefilled;
        self.cached += reply.tokens.cached;
        self.prompt += reply.timings.prompt;
        self.generated += reply.tokens.generated;
        self.decode += reply.timings.decode;
    }
}

/// The words of an answer on their way to a listener.
struct Words<'a, 'b> {
    listener: &'a mut Listener<'b>,
    waiting: String,
    /// Words may belong to a run-away: they wait.
    held: bool,
}

impl<'a, 'b> Words<'a, 'b> {
    fn new(listener: &'a mut Listener<'b>) -> Self {
        Self { listener, waiting: String::new(), held: false }
    }

    fn hear(&mut self, event: Event<'_>) -> ControlFlow<()> {
        if let Event::Text(text) = event {
            self.waiting.push_str(text);
        }
        self.release()
    }

    fn release(&mut self) -> ControlFlow<()> {
        if self.held || self.waiting.is_empty() {
            return ControlFlow::Continue(());
        }
        (self.listener)(Hearing::Words(&std::mem::take(&mut self.waiting)))
    }
}

/// The logarithm of a token's probability, from capped logits.
fn logprob(logits: &[f32], id: TokenId) -> f64 {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - greatest).exp())).sum();
    let logit = logits.get(id.0 as usize).copied().unwrap_or(f32::NEG_INFINITY);
    f64::from(logit - greatest) - sum.ln()
}

/// A clip's words are one line: each run of white space is a space.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
