//! The towers of a model: a picture's pixels or a sound's samples in, soft tokens out.
//!
//! A file has one of them or both. Each is opened when it is first needed, and their memory can be
//! given back in between; what they make of the ids of their own vocabulary is kept.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::error::Error;
use super::media::SoftTokens;
use crate::gguf::Gguf;
use crate::media::audio::RATE;
use crate::media::audio::mel::{HOP, LONGEST, LogMel, SPAN};
use crate::model::audio::{self, AudioConfig, AudioModel};
use crate::model::scope::Kernels;
use crate::model::tower::{EncoderOptions, Precision};
use crate::model::vision::{self, VisionConfig, VisionModel};
use crate::model::{Fault, OpenError, StepError};
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
    eyes: Option<Tower<Eyes>>,
    ears: Option<Tower<Ears>>,
    interrupt: Mutex<Arc<AtomicBool>>,
}

/// A tower that the file has.
struct Tower<S: Sense> {
    config: S::Config,
    /// Where it is open.
    open: Mutex<Option<S>>,
    hard_tokens: OnceLock<Vec<f32>>,
}

/// An open tower, as far as the two are alike.
trait Sense: Sized {
    type Config;

    fn open(gguf: &Arc<Gguf>, embedding: usize, options: TowerOptions) -> Result<Self, OpenError>;
    fn set_interrupt(&mut self, flag: Arc<AtomicBool>);
    /// The embedding of every id of its vocabulary, `[E, ids]`.
    fn hard_tokens(&mut self) -> Result<Vec<f32>, StepError>;
}

type Eyes = vision::Encoder;

struct Ears {
    encoder: audio::Encoder,
    features: LogMel,
}

impl<S: Sense> Tower<S> {
    fn new(config: S::Config) -> Self {
        let (open, hard_tokens) = Default::default();
        Self { config, open, hard_tokens }
    }

    fn rest(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// One that was opened for this alone is closed again.
    fn prepare_hard_tokens(&self, towers: &Towers) -> Result<(), Error> {
        if self.hard_tokens.get().is_some() {
            return Ok(());
        }
        let was_open = self.open.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        towers.with(self, |_| Ok(()))?;
        if !was_open {
            self.rest();
        }
        Ok(())
    }
}

impl Sense for Eyes {
    type Config = VisionConfig;

    fn open(gguf: &Arc<Gguf>, embedding: usize, options: TowerOptions) -> Result<Self, OpenError> {
        let model = VisionModel::open(gguf, embedding, options.precision)?;
        Ok(Self::new(model, options.encoder()))
    }

    fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.set_interrupt(flag);
    }

    fn hard_tokens(&mut self) -> Result<Vec<f32>, StepError> {
        self.hard_tokens()
    }
}

impl Sense for Ears {
    type Config = AudioConfig;

    fn open(gguf: &Arc<Gguf>, embedding: usize, options: TowerOptions) -> Result<Self, OpenError> {
        let model = AudioModel::open(gguf, embedding, options.precision)?;
        let features = LogMel::new(model.config().mel_bins);
        Ok(Self { encoder: audio::Encoder::new(model, options.encoder()), features })
    }

    fn set_interrupt(&mut self, flag: Arc<AtomicBool>) {
        self.encoder.set_interrupt(flag);
    }

    fn hard_tokens(&mut self) -> Result<Vec<f32>, StepError> {
        self.encoder.hard_tokens()
    }
}

impl TowerOptions {
    fn encoder(self) -> EncoderOptions {
        EncoderOptions { threads: self.threads, kernels: self.kernels }
    }
}

impl Towers {
    /// Reads what the file says of itself; its weights are looked at when they are needed.
    ///
    /// # Errors
    /// A file of something else, or with neither tower.
    pub fn open(gguf: Gguf, embedding: usize, options: TowerOptions) -> Result<Self, OpenError> {
        let (has_eyes, has_ears) = (VisionConfig::present(&gguf)?, AudioConfig::present(&gguf)?);
        let eyes = match has_eyes || !has_ears {
            true => Some(Tower::new(VisionConfig::read(&gguf)?)),
            false => None,
        };
        let ears = match has_ears {
            true => Some(Tower::new(AudioConfig::read(&gguf)?)),
            false => None,
        };
        let gguf = Arc::new(gguf);
        Ok(Self { gguf, embedding, options, eyes, ears, interrupt: Mutex::default() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.gguf.path()
    }

    /// Pixels of a picture's side, where nobody asks for another.
    ///
    /// # Errors
    /// The file has no tower for pictures.
    pub fn image_size(&self) -> Result<usize, Error> {
        Ok(self.eyes()?.config.image_size)
    }

    /// Refuses a size that the tower doesn't take, before a picture is read for it.
    ///
    /// # Errors
    /// Such a size; no tower for pictures, broken weights.
    pub fn check_side(&self, side: usize) -> Result<(), Error> {
        self.with(self.eyes()?, |encoder| match encoder.takes(side) {
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
    /// No tower for pictures, broken weights, interrupted, out of memory.
    pub fn see(&self, name: &str, pixels: &[f32], side: usize) -> Result<SoftTokens, Error> {
        let rows = self.with(self.eyes()?, |encoder| encoder.encode(pixels, side))?;
        Ok(SoftTokens::new(name, self.embedding, rows))
    }

    /// Samples at 16 kHz of the longest clip that the model hears: 30 s, or less where the tower's
    /// soft tokens are of less.
    ///
    /// # Errors
    /// The file has no tower for sounds.
    pub fn clip(&self) -> Result<usize, Error> {
        let config = &self.ears()?.config;
        let [[first, _], [second, _]] = config.strides;
        // Bounds of the configuration keep this product far from overflow.
        Ok(LONGEST.min(config.soft_tokens * config.reduction * first * second * HOP))
    }

    /// What the model hears of these samples at 16 kHz; what is beyond [`Towers::clip`] is left out.
    ///
    /// # Errors
    /// Less than a frame; no tower for sounds, broken weights, interrupted, out of memory.
    pub fn hear(&self, name: &str, samples: &[f32]) -> Result<SoftTokens, Error> {
        let ears = self.ears()?;
        if samples.len() < SPAN {
            let seconds = samples.len() as f64 / f64::from(RATE);
            return Err(Error::TooShort { name: name.to_owned(), seconds });
        }
        let samples = &samples[..samples.len().min(self.clip()?)];
        let rows = self.with(ears, |ears| {
            let features = ears.features.features(samples);
            ears.encoder.encode(&features.values, &features.valid)
        })?;
        Ok(SoftTokens::new(name, self.embedding, rows))
    }

    /// Makes ready what [`Towers::hard_token`] gives for these ids.
    ///
    /// # Errors
    /// As [`Towers::see`].
    pub fn prepare_hard_tokens(&self, ids: impl Iterator<Item = TokenId>) -> Result<(), Error> {
        for id in ids {
            match self.owner(id) {
                Some((Owner::Eyes(eyes), _)) => eyes.prepare_hard_tokens(self)?,
                Some((Owner::Ears(ears), _)) => ears.prepare_hard_tokens(self)?,
                None => {}
            }
        }
        Ok(())
    }

    /// The embedding of an id of a tower's vocabulary, once that was made ready.
    pub fn hard_token(&self, id: TokenId) -> Option<&[f32]> {
        let (owner, index) = self.owner(id)?;
        let rows = match owner {
            Owner::Eyes(eyes) => &eyes.hard_tokens,
            Owner::Ears(ears) => &ears.hard_tokens,
        };
        rows.get()?.chunks_exact(self.embedding).nth(index)
    }

    /// A flag that ends the looking and listening when it becomes true.
    pub fn set_interrupt(&self, flag: Arc<AtomicBool>) {
        *self.interrupt.lock().unwrap_or_else(PoisonError::into_inner) = flag;
    }

    /// Gives the towers' memory back; the next picture or sound opens its own again.
    pub fn rest(&self) {
        if let Some(eyes) = &self.eyes {
            eyes.rest();
        }
        if let Some(ears) = &self.ears {
            ears.rest();
        }
    }

    fn eyes(&self) -> Result<&Tower<Eyes>, Error> {
        self.eyes.as_ref().ok_or_else(|| self.lacks("vision"))
    }

    fn ears(&self) -> Result<&Tower<Ears>, Error> {
        self.ears.as_ref().ok_or_else(|| self.lacks("audio"))
    }

    fn lacks(&self, tower: &'static str) -> Error {
        OpenError::Model { file: self.path().to_path_buf(), fault: Fault::NoTower(tower) }.into()
    }

    /// The tower whose vocabulary an id is of, and its place there. Ids of sounds come after those
    /// of pictures.
    fn owner(&self, id: TokenId) -> Option<(Owner<'_>, usize)> {
        let id = id.0 as usize;
        let after = |offset: usize| id.checked_sub(offset);
        if let Some(ears) = &self.ears
            && let Some(index) = after(ears.config.vocab_offset)
        {
            return Some((Owner::Ears(ears), index));
        }
        let eyes = self.eyes.as_ref()?;
        Some((Owner::Eyes(eyes), after(eyes.config.vocab_offset)?))
    }

    /// Works with a tower, which is opened where it is not. What it makes of its vocabulary's ids is
    /// asked for while it is: a prompt with its soft tokens has such ids, too.
    fn with<S: Sense, T>(
        &self,
        tower: &Tower<S>,
        work: impl FnOnce(&mut S) -> Result<T, StepError>,
    ) -> Result<T, Error> {
        let mut slot = tower.open.lock().unwrap_or_else(PoisonError::into_inner);
        let sense = match &mut *slot {
            Some(sense) => sense,
            None => slot.insert(S::open(&self.gguf, self.embedding, self.options)?),
        };
        let interrupt = self.interrupt.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sense.set_interrupt(interrupt);
        let failed = |error| Error::Step { model: self.path().to_path_buf(), error };
        if tower.hard_tokens.get().is_none() {
            let rows = sense.hard_tokens().map_err(failed)?;
            tower.hard_tokens.get_or_init(|| rows);
        }
        work(sense).map_err(failed)
    }
}

/// Whose vocabulary an id is of.
enum Owner<'a> {
    Eyes(&'a Tower<Eyes>),
    Ears(&'a Tower<Ears>),
}
