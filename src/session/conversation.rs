//! A conversation: its messages, and the cache that holds what was read of them.
//!
//! Each turn renders the whole conversation, keeps what the cache already holds of it and
//! reads the rest. When the context is full, the oldest turns go, whole, until at most half
//! is used. Design §8.1.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::cache::Cache;
use super::decode::{Decode, EngineDecoder};
use super::engine::Engine;
use super::error::Error;
use super::generate::{Answer, Event, Finish, Listener, Reply};
use super::media::PromptToken;
use super::message::{Message, Part, Role};
use super::placeholder::{Kind, Media};
use super::prompt::Language;
use super::sampler::{Sampler, SamplerOptions};
use super::state::{self, Expected, Header, cache_type_name};
use crate::model::StepError;
use crate::model::text::DecoderOptions;
use crate::tokenizer::TokenId;

/// What happens when no position is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContextFull {
    /// The oldest turns go, whole, until at most half of the context is used.
    #[default]
    Drop,
    /// The answer ends with [`Finish::Context`].
    Stop,
}

/// How a conversation is held.
#[derive(Clone, Debug)]
pub struct ConversationOptions {
    /// Context, batch, cache type, threads, kernels.
    pub decoder: DecoderOptions,
    /// How tokens are drawn.
    pub sampler: SamplerOptions,
    /// System text.
    pub system: Option<String>,
    /// What to do when the context is full.
    pub context_full: ContextFull,
    /// Strings that end an answer; they are not part of it.
    pub stops: Vec<String>,
    /// Most tokens of one answer; `None`: as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Go on past the model's end of turn.
    pub ignore_eos: bool,
}

/// How full the context is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextUsage {
    /// Positions in the cache.
    pub used: usize,
    /// Positions of the context.
    pub capacity: usize,
    /// Positions the model was trained for.
    pub trained: usize,
}

/// A conversation with a model.
pub struct Conversation {
    language: Arc<Language>,
    /// The model's file and name, for messages.
    file: PathBuf,
    model: String,
    cache: Cache,
    sampler: Sampler,
    messages: Vec<Message>,
    options: ConversationOptions,
}

/// Where the ids of a prompt come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Messages,
    Raw,
}

impl Conversation {
    /// An empty conversation with its own cache.
    ///
    /// # Errors
    /// No memory for the cache, or options out of range (named).
    pub fn new(engine: Arc<Engine>, options: ConversationOptions) -> Result<Self, Error> {
        let decoder = EngineDecoder::new(engine.clone(), &options.decoder)
            .map_err(|error| Error::Step { model: engine.path().to_path_buf(), error })?;
        Self::with_decoder(
            engine.language().clone(),
            (engine.path().to_path_buf(), engine.name().to_owned()),
            Box::new(decoder),
            options,
        )
    }

    fn with_decoder(
        language: Arc<Language>,
        (file, model): (PathBuf, String),
        decoder: Box<dyn Decode>,
        mut options: ConversationOptions,
    ) -> Result<Self, Error> {
        options.system = options.system.filter(|text| !text.is_empty());
        Ok(Self {
            language,
            file,
            model,
            cache: Cache::new(decoder, options.decoder.batch),
            sampler: Sampler::new(options.sampler.clone())?,
            messages: Vec::new(),
            options,
        })
    }

    /// The model.
    pub fn engine(&self) -> &Arc<Engine> {
        self.cache.decoder().engine()
    }

    /// How it is held now.
    pub fn options(&self) -> &ConversationOptions {
        &self.options
    }

    /// A flag that ends a prefill or an answer when it becomes true. The caller resets it.
    pub fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.cache.set_interrupt(flag);
    }

    /// Whether that flag is set.
    pub fn is_interrupted(&self) -> bool {
        self.cache.interrupted()
    }

    /// Changes how tokens are drawn from now on.
    ///
    /// # Errors
    /// A value out of range.
    pub fn set_sampler(&mut self, options: SamplerOptions) -> Result<(), Error> {
        self.sampler = Sampler::new(options.clone())?;
        self.options.sampler = options;
        Ok(())
    }

    /// Changes the strings that end an answer.
    pub fn set_stops(&mut self, stops: Vec<String>) {
        self.options.stops = stops;
    }

    /// Changes the most tokens of an answer.
    pub fn set_max_tokens(&mut self, max_tokens: Option<usize>) {
        self.options.max_tokens = max_tokens;
    }

    /// Changes the system text; the next turn is read with it.
    pub fn set_system(&mut self, system: Option<String>) {
        self.options.system = system.filter(|text| !text.is_empty());
    }

    /// The system text.
    pub fn system(&self) -> Option<&str> {
        self.options.system.as_deref()
    }

    /// What was said, the system text excepted.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Adds the user's words. Before an answer to earlier ones they are one message, with a
    /// blank line between.
    pub fn push_user(&mut self, text: &str) {
        self.push_user_with(Vec::new(), text);
    }

    /// Adds the user's words and what is shown with them; that stands before the words of the
    /// whole message.
    pub fn push_user_with(&mut self, shown: Vec<Part>, text: &str) {
        let earlier = self.messages.pop_if(|message| message.role == Role::User);
        let mut content: Vec<Part> =
            earlier.iter().flat_map(Message::media).cloned().chain(shown).collect();
        let text = match earlier.map(|message| message.words()) {
            Some(words) if !words.is_empty() => format!("{words}\n\n{text}"),
            _ => text.to_owned(),
        };
        content.push(Part::Text { text });
        self.messages.push(Message { role: Role::User, content });
    }

    /// Answers the user's last message and keeps the answer.
    ///
    /// # Errors
    /// A template that refuses, a prompt longer than the context, no user message, logits
    /// that are not finite, a failure of the model. The unanswered message is then taken out.
    pub fn reply(
        &mut self,
        listener: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Reply, Error> {
        if !self.awaits_answer() {
            return Err(Error::NothingToAnswer);
        }
        let started = Instant::now();
        let prompt = self.fitting_prompt(listener);
        let answer = prompt.and_then(|ids| self.answer(&ids, Source::Messages, started, listener));
        match &answer {
            Ok(reply) if reply.text.is_empty() && reply.finish == Finish::Interrupted => {}
            Ok(reply) => self.messages.push(Message::text(Role::Model, &reply.text)),
            Err(_) => drop(self.messages.pop()),
        }
        answer
    }

    /// Continues a text as it stands: no template, control tokens in it count as such, `<bos>`
    /// is put before it unless it is there, each `<image_soft_token>` or `<audio_soft_token>` is the
    /// next picture or sound shown. The messages are not touched.
    ///
    /// # Errors
    /// As [`Conversation::reply`], or placeholders that are not as many as what is shown.
    pub fn complete_raw(
        &mut self,
        text: &str,
        shown: &[Part],
        listener: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Reply, Error> {
        let started = Instant::now();
        let prompt = self.language.raw(text, shown)?;
        let (tokens, capacity) = (prompt.len(), self.cache.capacity());
        let trained = self.cache.decoder().trained_context();
        match tokens {
            0 => Err(Error::EmptyPrompt),
            _ if tokens > capacity => Err(Error::PromptTooLong { tokens, capacity, trained }),
            _ => self.answer(&prompt, Source::Raw, started, listener),
        }
    }

    /// Takes the last turn back: the user's message and its answer. Returns the user's message
    /// (for `/edit`), `None` when there is no turn.
    pub fn undo(&mut self) -> Option<Message> {
        self.messages.pop_if(|message| message.role == Role::Model);
        self.messages.pop()
    }

    /// Takes the last answer back, so that [`Conversation::reply`] gives another. False when
    /// there is no user message to answer.
    pub fn retry(&mut self) -> bool {
        self.messages.pop_if(|message| message.role == Role::Model);
        self.awaits_answer()
    }

    /// Forgets all messages; the system text stays.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.cache.clear();
    }

    /// How full the context is.
    pub fn context_usage(&self) -> ContextUsage {
        ContextUsage {
            used: self.cache.len(),
            capacity: self.cache.capacity(),
            trained: self.cache.decoder().trained_context(),
        }
    }

    /// Writes a session file: messages, cache, sampler. Written beside the target and renamed;
    /// an existing file is replaced.
    ///
    /// # Errors
    /// The file cannot be written (named).
    pub fn save(&mut self, path: &Path) -> Result<(), Error> {
        self.roll_back_to_next_turn();
        let header = Header {
            model: self.model.clone(),
            fingerprint: self.cache.decoder().fingerprint(),
            slice: self.cache.decoder().slice(),
            cache_type: cache_type_name(self.options.decoder.cache).to_owned(),
            system: self.options.system.clone(),
            messages: self.messages.clone(),
            ids: self.cache.ids(),
            sampler: self.sampler.state(),
        };
        state::write(path, &header, |output| self.cache.save(output))?;
        Ok(())
    }

    /// Goes on from a session file; nothing is prefilled again.
    ///
    /// # Errors
    /// Not a session file, a damaged one, or one of another version, model, slice or cache
    /// type (named). The messages are then as they were.
    pub fn load(&mut self, path: &Path) -> Result<(), Error> {
        let fingerprint = self.cache.decoder().fingerprint();
        let slice = self.cache.decoder().slice();
        let expected = Expected {
            model: &self.model,
            fingerprint: &fingerprint,
            slice: slice.as_deref(),
            cache_type: cache_type_name(self.options.decoder.cache),
            capacity: self.cache.capacity(),
        };
        let (cache, language) = (&mut self.cache, &self.language);
        let header = state::read(path, &expected, |header, input| {
            let tokens = saved_tokens(language, header)?;
            cache.restore(tokens, input)
        })?;
        self.sampler.restore(header.sampler);
        self.options.system = header.system;
        self.messages = header.messages;
        Ok(())
    }

    fn awaits_answer(&self) -> bool {
        self.messages.last().is_some_and(|message| message.role == Role::User)
    }

    /// The tokens of the system text and these messages, up to the opening of the model's turn.
    fn render(&self, messages: &[Message]) -> Result<Vec<PromptToken>, Error> {
        let system = self.options.system.iter().map(|text| Message::text(Role::System, text));
        let all: Vec<Message> = system.chain(messages.iter().cloned()).collect();
        Ok(self.language.conversation(&all)?)
    }

    /// Rolls the cache back to what the next turn will keep (sampled ids need not be those that
    /// their text is encoded to). It could still be done after loading, but at the price of a
    /// prefill: a saved sliding window reaches back no further than its end.
    fn roll_back_to_next_turn(&mut self) {
        let mut messages = self.messages.clone();
        if messages.is_empty() {
            return;
        }
        if !self.awaits_answer() {
            messages.push(Message::text(Role::User, "."));
        }
        if let Ok(ids) = self.render(&messages) {
            self.cache.keep(&ids);
        }
    }

    /// The conversation's ids, after old turns were dropped where they would not leave room.
    fn fitting_prompt(&mut self, listener: &mut Listener<'_>) -> Result<Vec<PromptToken>, Error> {
        let ids = self.render(&self.messages)?;
        let (capacity, trained) = (self.cache.capacity(), self.cache.decoder().trained_context());
        if ids.len() < capacity {
            return Ok(ids);
        }
        let newest = self.messages.len().saturating_sub(1);
        let tokens = self.render(&self.messages[newest..])?.len();
        if tokens > capacity {
            return Err(Error::PromptTooLong { tokens, capacity, trained });
        }
        let ids = match self.options.context_full {
            ContextFull::Drop => self.drop_turns(0, listener)?.unwrap_or(ids),
            ContextFull::Stop => ids,
        };
        match ids.len() {
            tokens if tokens > capacity => Err(Error::ContextFull { tokens, capacity, trained }),
            _ => Ok(ids),
        }
    }

    /// Drops the oldest turns until the rest and `further` tokens take at most half of the
    /// context, or only the newest message is left. `None` when there is nothing to drop.
    fn drop_turns(
        &mut self,
        further: usize,
        listener: &mut Listener<'_>,
    ) -> Result<Option<Vec<PromptToken>>, Error> {
        const TURN: usize = 2;
        let capacity = self.cache.capacity();
        let mut kept = None;
        let mut turns = 0;
        while self.messages.len() > TURN {
            self.messages.drain(..TURN);
            turns += 1;
            let ids = self.render(&self.messages)?;
            let used = ids.len().saturating_add(further);
            kept = Some(ids);
            if used <= capacity / 2 {
                break;
            }
        }
        if let Some(ids) = &kept {
            // An interruption here is seen at the next event.
            let _ = listener(Event::TurnsDropped { turns, kept: ids.len() + further, capacity });
        }
        Ok(kept)
    }

    /// Reads a prompt and answers it.
    fn answer(
        &mut self,
        prompt: &[PromptToken],
        source: Source,
        started: Instant,
        listener: &mut Listener<'_>,
    ) -> Result<Reply, Error> {
        let language = self.language.clone();
        let mut answer = Answer::new(&language, &self.options, started);
        let ids: Vec<TokenId> = prompt.iter().map(|token| token.id).collect();
        self.sampler.remember(&ids);
        let mut logits = self.read(prompt, &mut answer, listener)?;
        let finish = loop {
            let Some(current) = logits else { break Finish::Interrupted };
            if answer.is_full() {
                break Finish::Length;
            }
            let id = self.sampler.sample(&current)?;
            self.sampler.accept(id);
            if let Some(finish) = answer.take(id, listener) {
                break finish;
            }
            if self.cache.interrupted() {
                break Finish::Interrupted;
            }
            logits = if self.cache.len() < self.cache.capacity() {
                self.cache.advance(id).map_err(|error| self.step_error(error))?
            } else {
                match self.make_room(answer.ids(), source, listener)? {
                    Some(prompt) => self.read(&prompt, &mut answer, listener)?,
                    None => break Finish::Context,
                }
            };
        };
        Ok(answer.end(finish, listener))
    }

    /// In the midst of an answer: the prompt without old turns, and the answer so far.
    fn make_room(
        &mut self,
        said: &[TokenId],
        source: Source,
        listener: &mut Listener<'_>,
    ) -> Result<Option<Vec<PromptToken>>, Error> {
        if source == Source::Raw || self.options.context_full == ContextFull::Stop {
            return Ok(None);
        }
        let Some(mut prompt) = self.drop_turns(said.len(), listener)? else { return Ok(None) };
        prompt.extend(said.iter().map(|&id| PromptToken::from(id)));
        Ok((prompt.len() <= self.cache.capacity()).then_some(prompt))
    }

    fn read(
        &mut self,
        prompt: &[PromptToken],
        answer: &mut Answer<'_>,
        listener: &mut Listener<'_>,
    ) -> Result<Option<Vec<f32>>, Error> {
        let started = Instant::now();
        self.cache.decoder().prepare(prompt)?;
        let read = self.cache.read(prompt, listener).map_err(|error| self.step_error(error))?;
        answer.count_prompt(prompt.len(), &read, started.elapsed());
        Ok(read.logits)
    }

    fn step_error(&self, error: StepError) -> Error {
        Error::Step { model: self.file.clone(), error }
    }
}

/// The tokens at a saved cache's positions: ids as they were saved, and for placeholders the rows
/// of the saved messages' pictures and sounds, in order.
fn saved_tokens(language: &Language, header: &mut Header) -> io::Result<Vec<PromptToken>> {
    let media = Media::of(header.messages.iter().flat_map(Message::media));
    let mut rows = Kind::ALL.map(|kind| (language.placeholder(kind), media.rows(kind)));
    let ids = std::mem::take(&mut header.ids);
    let tokens = ids.into_iter().map(|id| {
        let own = rows.iter_mut().find(|(placeholder, _)| *placeholder == Some(id));
        PromptToken { id, soft: own.and_then(|(_, rows)| rows.next()) }
    });
    Ok(tokens.collect())
}

#[cfg(test)]
mod tests;
