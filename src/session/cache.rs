//! The decoder's cache, and the ids it holds.
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

/// A decoder and the ids at its positions.
pub(super) struct Cache {
    decoder: Box<dyn Decode>,
    ids: Vec<TokenId>,
    batch: usize,
    interrupt: Arc<AtomicBool>,
}

impl Cache {
    /// An empty cache; `batch` tokens are read between two looks at the listener.
    pub fn new(decoder: Box<dyn Decode>, batch: usize) -> Self {
        Self { decoder, ids: Vec::new(), batch: batch.max(1), interrupt: Arc::default() }
    }

    /// The decoder.
    pub fn decoder(&self) -> &dyn Decode {
        &*self.decoder
    }

    /// The ids at its positions.
    pub fn ids(&self) -> &[TokenId] {
        &self.ids
    }

    /// Positions in the cache.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Positions it can hold.
    pub fn capacity(&self) -> usize {
        self.decoder.capacity()
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.decoder.clear();
        self.ids.clear();
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
        prompt: &[TokenId],
        listener: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ReadPrompt, StepError> {
        // The last token is read again where all are held: its logits are wanted.
        let cached = self.keep(&prompt[..prompt.len().saturating_sub(1)]);
        self.decoder.snapshot();
        let total = prompt.len() - cached;
        let mut read = 0;
        let mut logits = None;
        while read < total && !self.interrupted() {
            let ids = &prompt[cached + read..];
            let ids = &ids[..ids.len().min(self.batch)];
            let last = read + ids.len() == total;
            match self.step(ids, last) {
                Ok(found) => logits = found,
                Err(StepError::Interrupted) => break,
                Err(error) => return Err(error),
            }
            read += ids.len();
            if listener(Event::Prefill { done: read, total }).is_break() {
                return Ok(ReadPrompt { cached, read, logits: None });
            }
        }
        Ok(ReadPrompt { cached, read, logits })
    }

    /// Rolls back to what is held of `ids`, or further where that cannot be reached; returns how
    /// many are left.
    pub fn keep(&mut self, ids: &[TokenId]) -> usize {
        let common = ids.iter().zip(&self.ids).take_while(|(a, b)| a == b).count();
        let kept = self.decoder.truncate(common);
        self.ids.truncate(kept);
        kept
    }

    /// Reads one token more; the logits after it, `None` when interrupted.
    ///
    /// # Errors
    /// A failure of the model; the token is then not in the cache.
    pub fn advance(&mut self, id: TokenId) -> Result<Option<Vec<f32>>, StepError> {
        match self.step(&[id], true) {
            Err(StepError::Interrupted) => Ok(None),
            result => result,
        }
    }

    fn step(&mut self, ids: &[TokenId], logits: bool) -> Result<Option<Vec<f32>>, StepError> {
        let result = if logits {
            self.decoder.prefill_logits(ids).map(Some)
        } else {
            self.decoder.prefill(ids).map(|()| None)
        };
        // A step that failed may have kept some of its batches.
        self.ids.extend_from_slice(ids);
        self.ids.truncate(self.decoder.len());
        result
    }

    /// Puts a saved state in place of what is held; if that fails, the cache is empty.
    ///
    /// # Errors
    /// The reader's, or keys and values that are not those of `ids`.
    pub fn restore(&mut self, ids: Vec<TokenId>, input: &mut dyn Read) -> io::Result<()> {
        self.clear();
        self.decoder.load_state(input)?;
        let positions = self.decoder.len();
        if positions != ids.len() {
            self.clear();
            let text = format!("{positions} positions for {} ids", ids.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.ids = ids;
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
