//! What the model sees in a reference's prompt: its pictures through the tower, and the ids of
//! the tower's own vocabulary.

use std::path::Path;
use std::sync::Arc;

use super::{Error, Options, Reference};
use crate::gguf::Gguf;
use crate::media::image;
use crate::model::StepError;
use crate::model::vision::{Encoder, EncoderOptions, Precision, VisionConfig, VisionModel};

/// Which id of the tower's vocabulary stands for a soft token; 0 ends a picture.
const PLACEHOLDER: usize = 1;

/// Embeddings that take the place of the table's: which token, and its row.
pub type Rows = Vec<(usize, Vec<f32>)>;

/// A tower that is exact, as comparisons need it.
pub struct Sight {
    model: Arc<VisionModel>,
    encoder: Encoder,
    embedding: usize,
}

impl Sight {
    /// Opens the tower of a text model of this width.
    ///
    /// # Errors
    /// The file has no sound tower for it.
    pub fn open(gguf: &Arc<Gguf>, embedding: usize, options: Options) -> Result<Self, Error> {
        let model = VisionModel::open(gguf, embedding, Precision::Exact)?;
        let options = EncoderOptions { threads: options.threads, kernels: options.kernels };
        Ok(Self { encoder: Encoder::new(model.clone(), options), model, embedding })
    }

    /// Whether a prompt has pictures, or ids of these towers' own vocabulary.
    ///
    /// # Errors
    /// The file has no such tower.
    pub fn concerns(gguf: &Gguf, reference: &Reference) -> Result<bool, Error> {
        let offset = VisionConfig::read(gguf)?.vocab_offset;
        let own = |&id: &i32| usize::try_from(id).is_ok_and(|id| id >= offset);
        Ok(!reference.media.is_empty() || reference.tokens.iter().any(own))
    }

    /// The rows of a prompt whose pictures lie in `folder`; `file` is what errors name.
    ///
    /// # Errors
    /// A picture that can't be read, or placeholders that don't fit the pictures.
    pub fn rows(
        &mut self,
        reference: &Reference,
        folder: &Path,
        file: &str,
    ) -> Result<Rows, Error> {
        let side = self.model.config().image_size;
        let mut soft = Vec::new();
        for name in &reference.media {
            let pixels = image::open(&folder.join(name))?.squashed(side).values();
            let seen = self.encoder.encode(&pixels, side);
            soft.extend(seen.map_err(|source| Error::Step { file: file.to_owned(), source })?);
        }
        self.place(reference, &soft, file)
    }

    /// The same for soft tokens that are there, `[E, n]`.
    ///
    /// # Errors
    /// They are more than the prompt has placeholders.
    pub fn place(
        &mut self,
        reference: &Reference,
        soft: &[f32],
        file: &str,
    ) -> Result<Rows, Error> {
        let step = |source| Error::Step { file: file.to_owned(), source };
        let offset = self.model.config().vocab_offset;
        let index = |id: i32| usize::try_from(id).ok().and_then(|id| id.checked_sub(offset));
        let hard = match reference.tokens.iter().any(|&id| index(id).is_some()) {
            true => self.encoder.hard_tokens().map_err(step)?,
            false => Vec::new(),
        };
        let mut soft = soft.chunks_exact(self.embedding).map(<[f32]>::to_vec);
        let mut rows = Rows::new();
        for (i, &id) in reference.tokens.iter().enumerate() {
            let Some(index) = index(id) else { continue };
            let shown = (index == PLACEHOLDER).then(|| soft.next()).flatten();
            let plain = || hard.chunks_exact(self.embedding).nth(index).map(<[f32]>::to_vec);
            rows.extend(shown.or_else(plain).map(|row| (i, row)));
        }
        match soft.next() {
            None => Ok(rows),
            Some(_) => Err(step(StepError::Options(
                "the pictures have more soft tokens than the prompt placeholders".to_owned(),
            ))),
        }
    }
}
