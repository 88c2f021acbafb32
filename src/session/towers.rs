//! The towers of a model: a picture's pixels in, soft tokens out.
//!
//! They are opened when the first picture comes, and their memory can be given back between
//! pictures; what they make of the ids of their own vocabulary is kept.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::error::Error;
use super::media::SoftTokens;
use crate::gguf::Gguf;
use crate::model::scope::Kernels;
use crate::model::tower::{EncoderOptions, Precision};
use crate::model::vision::{Encoder, VisionConfig, VisionModel};
use crate::model::{OpenError, StepError};
use crate::tokenizer::TokenId;

/// How towers run.
#[derive(Clone, Copy, Debug, Default)]
pub struct TowerOptions {
    /// Threads of a tower's graph, at least one.
    pub threads: usize,
    /// Our kernels, or their plain twins.
    pub kernels: Kernels,
    /// Of the towers' products.
    pub precision: Precision,
}

/// The file of towers beside a text model.
pub struct Towers {
    gguf: Arc<Gguf>,
    /// The text model's width.
    embedding: usize,
    options: TowerOptions,
    vision: VisionConfig,
    encoder: Mutex<Option<Encoder>>,
    interrupt: Mutex<Arc<AtomicBool>>,
    hard_tokens: OnceLock<Vec<f32>>,
}

impl Towers {
    /// Reads what the file says of itself; its weights are looked at when they are needed.
    ///
    /// # Errors
    /// A file of something else, or without the vision tower.
    pub fn open(gguf: Gguf, embedding: usize, options: TowerOptions) -> Result<Self, OpenError> {
        let vision = VisionConfig::read(&gguf)?;
        let (encoder, interrupt, hard_tokens) = Default::default();
        let gguf = Arc::new(gguf);
        Ok(Self { gguf, embedding, options, vision, encoder, interrupt, hard_tokens })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.gguf.path()
    }

    /// Pixels of a picture's side, where nobody asks for another.
    pub fn image_size(&self) -> usize {
        self.vision.image_size
    }

    /// Refuses a size that the tower doesn't take, before a picture is read for it.
    ///
    /// # Errors
    /// Such a size; broken weights.
    pub fn check_side(&self, side: usize) -> Result<(), Error> {
        self.with_encoder(|encoder| match encoder.takes(side) {
            true => Ok(()),
            false => {
                let sides: Vec<_> = encoder.sides().map(|side| side.to_string()).collect();
                Err(StepError::Options(format!(
                    "the tower takes pictures of {} pixels, not of {side}",
                    sides.join(", ")
                )))
            }
        })
    }

    /// What the model sees of `side × side` pixels, `[3, side²]` in [0, 1], a size that was checked.
    ///
    /// # Errors
    /// Broken weights, interrupted, out of memory.
    pub fn see(&self, name: &str, pixels: &[f32], side: usize) -> Result<SoftTokens, Error> {
        let rows = self.with_encoder(|encoder| encoder.encode(pixels, side))?;
        Ok(SoftTokens::new(name, self.embedding, rows))
    }

    /// Makes ready what [`Towers::hard_token`] gives.
    ///
    /// # Errors
    /// As [`Towers::see`].
    pub fn prepare_hard_tokens(&self) -> Result<(), Error> {
        if self.hard_tokens.get().is_none() {
            let rows = self.with_encoder(Encoder::hard_tokens)?;
            self.hard_tokens.get_or_init(|| rows);
        }
        Ok(())
    }

    /// Whether an id is of a tower's vocabulary.
    pub fn owns(&self, id: TokenId) -> bool {
        id.0 as usize >= self.vision.vocab_offset
    }

    /// The embedding of an id of the tower's vocabulary, once that was made ready.
    pub fn hard_token(&self, id: TokenId) -> Option<&[f32]> {
        let index = (id.0 as usize).checked_sub(self.vision.vocab_offset)?;
        self.hard_tokens.get()?.chunks_exact(self.embedding).nth(index)
    }

    /// A flag that ends the looking when it becomes true.
    pub fn set_interrupt(&self, flag: Arc<AtomicBool>) {
        *self.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = flag;
    }

    /// Gives the tower's memory back; the next picture opens it again.
    pub fn rest(&self) {
        *self.encoder.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn with_encoder<T>(
        &self,
        work: impl FnOnce(&mut Encoder) -> Result<T, StepError>,
    ) -> Result<T, Error> {
        let mut slot = self.encoder.lock().unwrap_or_else(PoisonError::into_inner);
        let encoder = match &mut *slot {
            Some(encoder) => encoder,
            None => {
                let TowerOptions { threads, kernels, precision } = self.options;
                let model = VisionModel::open(&self.gguf, self.embedding, precision)?;
                slot.insert(Encoder::new(model, EncoderOptions { threads, kernels }))
            }
        };
        let interrupt = self.interrupt.lock().unwrap_or_else(PoisonError::into_inner).clone();
        encoder.set_interrupt(interrupt);
        let model = self.path().to_path_buf();
        work(encoder).map_err(|error| Error::Step { model, error })
    }
}
