//! What the model sees and hears in a reference's prompt: its pictures and sounds through the
//! towers, and the ids of the towers' own vocabularies.

use std::path::Path;
use std::sync::Arc;

use super::{Error, Options, Reference};
use crate::gguf::Gguf;
use crate::media;
use crate::media::audio::mel::LogMel;
use crate::media::audio::{self, SoundOptions};
use crate::media::image::{self, Picture};
use crate::model::StepError;
use crate::model::audio::{self as hearing, AudioConfig, AudioModel};
use crate::model::tower::{EncoderOptions, Precision};
use crate::model::vision::{self as sight, VisionConfig, VisionModel};

/// Which id of a tower's vocabulary stands for a soft token; 0 ends a picture or sound.
const PLACEHOLDER: usize = 1;

/// Embeddings that take the place of the table's: which token, and its row.
pub type Rows = Vec<(usize, Vec<f32>)>;

/// A tower's vocabulary in a prompt.
struct Vocabulary {
    /// The first id.
    offset: usize,
    /// `[E, ids]`
    hard: Vec<f32>,
}

/// The towers of a file, exact, as comparisons need them.
pub struct Senses {
    vision: Option<(sight::Encoder, VisionConfig)>,
    audio: Option<(hearing::Encoder, AudioConfig)>,
    embedding: usize,
}

impl Senses {
    /// Opens the towers of a text model of this width.
    ///
    /// # Errors
    /// The file has no sound towers for it.
    pub fn open(gguf: &Arc<Gguf>, embedding: usize, options: Options) -> Result<Self, Error> {
        let exact = Precision::Exact;
        let options = EncoderOptions { threads: options.threads, kernels: options.kernels };
        let vision = match VisionConfig::present(gguf)? || !AudioConfig::present(gguf)? {
            true => {
                let model = VisionModel::open(gguf, embedding, exact)?;
                let config = model.config().clone();
                Some((sight::Encoder::new(model, options), config))
            }
            false => None,
        };
        let audio = match AudioConfig::present(gguf)? {
            true => {
                let model = AudioModel::open(gguf, embedding, exact)?;
                let config = model.config().clone();
                Some((hearing::Encoder::new(model, options), config))
            }
            false => None,
        };
        Ok(Self { vision, audio, embedding })
    }

    /// Whether a prompt has pictures or sounds, or ids of these towers' own vocabularies.
    ///
    /// # Errors
    /// The file has no towers.
    pub fn concerns(gguf: &Gguf, reference: &Reference) -> Result<bool, Error> {
        let offset = match VisionConfig::present(gguf)? || !AudioConfig::present(gguf)? {
            true => VisionConfig::read(gguf)?.vocab_offset,
            false => AudioConfig::read(gguf)?.vocab_offset,
        };
        let own = |&id: &i32| usize::try_from(id).is_ok_and(|id| id >= offset);
        Ok(!reference.media.is_empty() || reference.tokens.iter().any(own))
    }

    /// The rows of a prompt whose pictures and sounds lie in `folder`; `file` is what errors name.
    ///
    /// # Errors
    /// One that can't be read, or placeholders that don't fit them.
    pub fn rows(
        &mut self,
        reference: &Reference,
        folder: &Path,
        file: &str,
    ) -> Result<Rows, Error> {
        let (mut seen, mut heard) = (Vec::new(), Vec::new());
        for name in &reference.media {
            let path = folder.join(name);
            match image::open(&path) {
                Ok(picture) => seen.extend(self.see(&picture, file)?),
                Err(media::Error { fault: media::Fault::NotAPicture(_), .. }) => {
                    heard.extend(self.hear(&path, file)?);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.place(reference, &seen, &heard, file)
    }

    fn see(&mut self, picture: &Picture, file: &str) -> Result<Vec<f32>, Error> {
        let Some((encoder, config)) = &mut self.vision else { return Err(missing(file)) };
        let side = config.image_size;
        let pixels = picture.squashed(side).values();
        encoder
            .encode(&pixels, side)
            .map_err(|source| Error::Step { file: file.to_owned(), source })
    }

    fn hear(&mut self, path: &Path, file: &str) -> Result<Vec<f32>, Error> {
        let Some((encoder, config)) = &mut self.audio else { return Err(missing(file)) };
        let mut sound = audio::Sound::open(path, &SoundOptions::default())?;
        let mut samples = Vec::new();
        while let Some(piece) = sound.next_piece()? {
            samples.extend(piece);
        }
        let features = LogMel::new(config.mel_bins).features(&samples);
        encoder
            .encode(&features.values, &features.valid)
            .map_err(|source| Error::Step { file: file.to_owned(), source })
    }

    /// The same for soft tokens that are there, `[E, n]`: of pictures and of sounds.
    ///
    /// # Errors
    /// They are more than the prompt has placeholders.
    pub fn place(
        &mut self,
        reference: &Reference,
        seen: &[f32],
        heard: &[f32],
        file: &str,
    ) -> Result<Rows, Error> {
        let step = |source| Error::Step { file: file.to_owned(), source };
        let mut vocabularies = Vec::new();
        if let Some((encoder, config)) = &mut self.vision {
            let hard = encoder.hard_tokens().map_err(step)?;
            vocabularies.push((Vocabulary { offset: config.vocab_offset, hard }, seen));
        }
        if let Some((encoder, config)) = &mut self.audio {
            let hard = encoder.hard_tokens().map_err(step)?;
            vocabularies.push((Vocabulary { offset: config.vocab_offset, hard }, heard));
        }
        let mut rows = Rows::new();
        let width = self.embedding;
        let mut soft: Vec<_> =
            vocabularies.iter().map(|(_, soft)| soft.chunks_exact(width)).collect();
        for (i, &id) in reference.tokens.iter().enumerate() {
            let Ok(id) = usize::try_from(id) else { continue };
            // The last vocabulary that begins at or before the id.
            let owner = vocabularies.iter().rposition(|(own, _)| id >= own.offset);
            let Some(owner) = owner else { continue };
            let own = &vocabularies[owner].0;
            let index = id - own.offset;
            let shown = (index == PLACEHOLDER).then(|| soft[owner].next()).flatten();
            let plain = || own.hard.chunks_exact(self.embedding).nth(index);
            rows.extend(shown.or_else(plain).map(|row| (i, row.to_vec())));
        }
        match soft.iter_mut().any(|rest| rest.next().is_some()) {
            false => Ok(rows),
            true => Err(step(StepError::Options(
                "pictures or sounds have more soft tokens than the prompt placeholders".to_owned(),
            ))),
        }
    }
}

fn missing(file: &str) -> Error {
    Error::NoTowers { file: file.to_owned() }
}
