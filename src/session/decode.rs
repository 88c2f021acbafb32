//! What a conversation needs of a model: the decoder's doors, and who the model is.
//!
//! A trait, so that the conversation's own arithmetic (what is kept, rolled back, dropped)
//! is tested against a decoder that counts and answers from a script.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::engine::Engine;
use super::error::Error;
use super::media::PromptToken;
use crate::model::StepError;
use crate::model::text::{Decoder, DecoderOptions, Tokens};
use crate::tokenizer::TokenId;

/// A model with a cache.
pub(super) trait Decode: Send {
    /// The model.
    fn engine(&self) -> &Arc<Engine>;
    /// Identity of the model, for session files.
    fn fingerprint(&self) -> String;
    /// The slice of the model that is in use, for session files.
    fn slice(&self) -> Option<String>;
    /// Positions the model was trained for.
    fn trained_context(&self) -> usize;
    /// Positions in the cache.
    fn len(&self) -> usize;
    /// Positions the cache can hold.
    fn capacity(&self) -> usize;
    /// Empties the cache.
    fn clear(&mut self);
    /// Remembers this position, so that [`Decode::truncate`] can come back to it.
    fn snapshot(&mut self);
    /// Rolls back to the greatest reachable length that is at most `len`; returns it.
    fn truncate(&mut self, len: usize) -> usize;
    /// Makes ready what these tokens need beside the model; before they are read.
    fn prepare(&self, tokens: &[PromptToken]) -> Result<(), Error>;
    /// Reads tokens without logits.
    fn prefill(&mut self, tokens: &[PromptToken]) -> Result<(), StepError>;
    /// Reads tokens; the logits after the last.
    fn prefill_logits(&mut self, tokens: &[PromptToken]) -> Result<Vec<f32>, StepError>;
    /// A flag that ends a step, or the work of a tower.
    fn set_interrupt(&mut self, flag: Arc<AtomicBool>);
    /// Writes keys and values in the order of positions.
    fn save_state(&self, output: &mut dyn Write) -> io::Result<()>;
    /// Reads what [`Decode::save_state`] wrote.
    fn load_state(&mut self, input: &mut dyn Read) -> io::Result<()>;
}

/// A real model.
pub(super) struct EngineDecoder {
    engine: Arc<Engine>,
    decoder: Decoder,
}

impl EngineDecoder {
    /// A decoder with an empty cache.
    ///
    /// # Errors
    /// Options that do not go together with the model.
    pub fn new(engine: Arc<Engine>, options: &DecoderOptions) -> Result<Self, StepError> {
        let decoder = Decoder::new(engine.model().clone(), options.clone())?;
        Ok(Self { engine, decoder })
    }
}

impl Decode for EngineDecoder {
    fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    fn fingerprint(&self) -> String {
        self.engine.fingerprint().to_owned()
    }

    fn slice(&self) -> Option<String> {
        self.engine.slice()
    }

    fn trained_context(&self) -> usize {
        self.engine.trained_context()
    }

    fn len(&self) -> usize {
        self.decoder.len()
    }

    fn capacity(&self) -> usize {
        self.decoder.capacity()
    }

    fn clear(&mut self) {
        self.decoder.clear();
    }

    fn snapshot(&mut self) {
        self.decoder.snapshot();
    }

    fn truncate(&mut self, len: usize) -> usize {
        self.decoder.truncate(len)
    }

    fn prepare(&self, tokens: &[PromptToken]) -> Result<(), Error> {
        match self.engine.towers() {
            // Placeholders have rows of their own.
            Some(towers) => towers.prepare_hard_tokens(
                tokens.iter().filter(|token| token.soft.is_none()).map(|token| token.id),
            ),
            None => Ok(()),
        }
    }

    fn prefill(&mut self, tokens: &[PromptToken]) -> Result<(), StepError> {
        let input = Embedded::new(&self.engine, tokens);
        self.decoder.prefill(input.tokens())
    }

    fn prefill_logits(&mut self, tokens: &[PromptToken]) -> Result<Vec<f32>, StepError> {
        let input = Embedded::new(&self.engine, tokens);
        self.decoder.prefill_logits(input.tokens())
    }

    fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        if let Some(towers) = self.engine.towers() {
            towers.set_interrupt(flag.clone());
        }
        self.decoder.set_interrupt(flag);
    }

    fn save_state(&self, output: &mut dyn Write) -> io::Result<()> {
        self.decoder.save_state(output)
    }

    fn load_state(&mut self, input: &mut dyn Read) -> io::Result<()> {
        self.decoder.load_state(input)
    }
}

/// Tokens as the decoder takes them: ids, and the rows that take the place of their embeddings.
struct Embedded<'a> {
    ids: Vec<TokenId>,
    rows: Vec<(usize, &'a [f32])>,
}

impl<'a> Embedded<'a> {
    /// Soft tokens have the rows of their picture or sound, ids of a tower's own vocabulary that tower's.
    fn new(engine: &'a Engine, tokens: &'a [PromptToken]) -> Self {
        let row = |token: &'a PromptToken| match &token.soft {
            Some((media, row)) => Some(media.row(*row)),
            None => engine.towers()?.hard_token(token.id),
        };
        let rows = tokens.iter().enumerate().filter_map(|(i, token)| Some((i, row(token)?)));
        Self { ids: tokens.iter().map(|token| token.id).collect(), rows: rows.collect() }
    }

    fn tokens(&self) -> Tokens<'_> {
        Tokens { ids: &self.ids, embeddings: &self.rows }
    }
}
