//! The decoder's cache, and the tokens it holds.
//!
//! A prompt is read from where it differs from what the cache holds:
//!
//! ```text
//! cache   a b c d e f g          prompt   a b c d x y
//! keep    a b c d                (or less: the decoder says how far back it can go)
//! read            x y            in batches; logits after the last only
//! ```

use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::decode::Decode;
use super::generate::Event;
use super::media::PromptToken;
use crate::model::StepError;
use crate::tokenizer::TokenId;

/// A prompt that was read.
pub(super) struct ReadPrompt {
    /// Tokens that the cache held already.
    pub cached: usize,
    /// Tokens that were read.
    pub read: usize,
    /// Logits after the last token; `None` when the reading was interrupted.
    pub logits: Option<Vec<f32>>,
}

/// A decoder and the tokens at its positions.
pub(super) struct Cache {
    decoder: Box<dyn Decode>,
    tokens: Vec<PromptToken>,
    batch: usize,
    interrupt: Arc<AtomicBool>,
}

impl Cache {
    /// An empty cache; `batch` tokens are read between two looks at the listener.
    pub fn new(decoder: Box<dyn Decode>, batch: usize) -> Self {
        Self { decoder, tokens: Vec::new(), batch: batch.max(1), interrupt: Arc::default() }
    }

    /// The decoder.
    pub fn decoder(&self) -> &dyn Decode {
        &*self.decoder
    }

    /// The ids at its positions.
    pub fn ids(&self) -> Vec<TokenId> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    /// Positions in the cache.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Positions it can hold.
    pub fn capacity(&self) -> usize {
        self.decoder.capacity()
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.decoder.clear();
        self.tokens.clear();
    }

    /// A flag that ends steps when it becomes true.
    pub fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.decoder.set_interrupt(flag.clone());
        self.interrupt = flag;
    }

    /// Whether the flag is set.
    pub fn interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }

    /// Makes the cache hold `prompt`, which is not empty and fits, and gives the logits after it.
    ///
    /// # Errors
    /// A failure of the model. The cache then holds what was read before it.
    pub fn read(
        &mut self,
        prompt: &[PromptToken],
        listener: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ReadPrompt, StepError> {
        // The last token is read again where all are held: its logits are wanted.
        let cached = self.keep(&prompt[..prompt.len().saturating_sub(1)]);
        self.decoder.snapshot();
        let total = prompt.len() - cached;
        let mut read = 0;
        let mut logits = None;
        while read < total && !self.interrupted() {
            let tokens = &prompt[cached + read..];
            let tokens = &tokens[..tokens.len().min(self.batch)];
            let last = read + tokens.len() == total;
            match self.step(tokens, last) {
                Ok(found) => logits = found,
                Err(StepError::Interrupted) => break,
                Err(error) => return Err(error),
            }
            read += tokens.len();
            if listener(Event::Prefill { done: read, total }).is_break() {
                return Ok(ReadPrompt { cached, read, logits: None });
            }
        }
        Ok(ReadPrompt { cached, read, logits })
    }

    /// Makes the cache hold these tokens, without logits; returns how many were read for it.
    ///
    /// # Errors
    /// As [`Cache::read`].
    pub fn hold(&mut self, tokens: &[PromptToken]) -> Result<usize, StepError> {
        let cached = self.keep(tokens);
        self.decoder.snapshot();
        let mut read = 0;
        for tokens in tokens[cached..].chunks(self.batch) {
            match self.step(tokens, false) {
                Ok(_) => read += tokens.len(),
                Err(StepError::Interrupted) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    /// Rolls back to what is held of `tokens`, or further where that cannot be reached; returns
    /// how many are left.
    pub fn keep(&mut self, tokens: &[PromptToken]) -> usize {
        let common = tokens.iter().zip(&self.tokens).take_while(|(a, b)| a == b).count();
        let kept = self.decoder.truncate(common);
        self.tokens.truncate(kept);
        kept
    }

    /// Reads one token more; the logits after it, `None` when interrupted.
    ///
    /// # Errors
    /// A failure of the model; the token is then not in the cache.
    pub fn advance(&mut self, id: TokenId) -> Result<Option<Vec<f32>>, StepError> {
        match self.step(&[id.into()], true) {
            Err(StepError::Interrupted) => Ok(None),
            result => result,
        }
    }

    fn step(
        &mut self,
        tokens: &[PromptToken],
        logits: bool,
    ) -> Result<Option<Vec<f32>>, StepError> {
        let result = if logits {
            self.decoder.prefill_logits(tokens).map(Some)
        } else {
            self.decoder.prefill(tokens).map(|()| None)
        };
        // A step that failed may have kept some of its batches.
        self.tokens.extend_from_slice(tokens);
        self.tokens.truncate(self.decoder.len());
        result
    }

    /// Puts a saved state in place of what is held; if that fails, the cache is empty.
    ///
    /// # Errors
    /// The reader's, or keys and values that are not those of `tokens`.
    pub fn restore(&mut self, tokens: Vec<PromptToken>, input: &mut dyn Read) -> io::Result<()> {
        self.clear();
        self.decoder.load_state(input)?;
        let positions = self.decoder.len();
        if positions != tokens.len() {
            self.clear();
            let text = format!("{positions} positions for {} ids", tokens.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.tokens = tokens;
        Ok(())
    }

    /// Writes keys and values.
    ///
    /// # Errors
    /// The writer's.
    pub fn save(&self, output: &mut dyn Write) -> io::Result<()> {
        self.decoder.save_state(output)
    }
}
