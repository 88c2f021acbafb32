//! A conversation: its messages, and the cache that holds what was read of them.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{DecoderOptions, Engine, Error, Event, Message, Reply, SamplerOptions};

/// What happens when no position is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContextFull {
    /// The oldest turns go, whole, until at most half of the context is used.
    #[default]
    Drop,
    /// The answer ends with [`super::Finish::Context`].
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
pub struct Conversation {}

impl Conversation {
    /// An empty conversation with its own cache.
    ///
    /// # Errors
    /// No memory for the cache, or options out of range (named).
    pub fn new(_engine: Arc<Engine>, _options: ConversationOptions) -> Result<Self, Error> {
        unimplemented!()
    }

    /// The model.
    pub fn engine(&self) -> &Arc<Engine> {
        unimplemented!()
    }

    /// How it is held now.
    pub fn options(&self) -> &ConversationOptions {
        unimplemented!()
    }

    /// A flag that ends a prefill or an answer when it becomes true. The caller resets it.
    pub fn set_interrupt(&mut self, _flag: Arc<AtomicBool>) {
        unimplemented!()
    }

    /// Changes how tokens are drawn from now on.
    ///
    /// # Errors
    /// A value out of range.
    pub fn set_sampler(&mut self, _options: SamplerOptions) -> Result<(), Error> {
        unimplemented!()
    }

    /// Changes the strings that end an answer.
    pub fn set_stops(&mut self, _stops: Vec<String>) {
        unimplemented!()
    }

    /// Changes the most tokens of an answer.
    pub fn set_max_tokens(&mut self, _max_tokens: Option<usize>) {
        unimplemented!()
    }

    /// Changes the system text; the next turn is read with it.
    pub fn set_system(&mut self, _system: Option<String>) {
        unimplemented!()
    }

    /// The system text.
    pub fn system(&self) -> Option<&str> {
        unimplemented!()
    }

    /// What was said, the system text excepted.
    pub fn messages(&self) -> &[Message] {
        unimplemented!()
    }

    /// Adds the user's words. Before an answer to earlier ones they are one message, with a
    /// blank line between.
    pub fn push_user(&mut self, _text: &str) {
        unimplemented!()
    }

    /// Answers the user's last message and keeps the answer.
    ///
    /// # Errors
    /// A template that refuses, a prompt longer than the context, no user message, logits
    /// that are not finite, a failure of the model. The unanswered message is then taken out.
    pub fn reply(
        &mut self,
        _listener: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Reply, Error> {
        unimplemented!()
    }

    /// Continues a text as it stands: no template, control tokens in it count as such, `<bos>`
    /// is put before it unless it is there. The messages are not touched.
    ///
    /// # Errors
    /// As [`Conversation::reply`].
    pub fn complete_raw(
        &mut self,
        _text: &str,
        _listener: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Reply, Error> {
        unimplemented!()
    }

    /// Takes the last turn back: the user's message and its answer. Returns the user's words
    /// (for `/edit`), `None` when there is no turn.
    pub fn undo(&mut self) -> Option<String> {
        unimplemented!()
    }

    /// Takes the last answer back, so that [`Conversation::reply`] gives another. False when
    /// there is no user message to answer.
    pub fn retry(&mut self) -> bool {
        unimplemented!()
    }

    /// Forgets all messages; the system text stays.
    pub fn clear(&mut self) {
        unimplemented!()
    }

    /// How full the context is.
    pub fn context_usage(&self) -> ContextUsage {
        unimplemented!()
    }

    /// Writes a session file: messages, cache, sampler. Written beside the target and renamed;
    /// an existing file is replaced.
    ///
    /// # Errors
    /// The file cannot be written (named).
    pub fn save(&mut self, _path: &Path) -> Result<(), Error> {
        unimplemented!()
    }

    /// Goes on from a session file; nothing is prefilled again.
    ///
    /// # Errors
    /// Not a session file, a damaged one, or one of another version, model, slice or cache
    /// type (named). The conversation is then as it was.
    pub fn load(&mut self, _path: &Path) -> Result<(), Error> {
        unimplemented!()
    }
}
