//! The sound tower: the Universal Speech Model's conformer over a clip's log-mel features, whose
//! output the embedder turns into soft tokens. One file a mechanism, [`tower`] reads them in order.
//!
//! Rows are frames, `[d, T]`. Frames of padding after the last valid one are dropped behind the
//! subsampling: no valid frame sees them (reference.md §9.3).
//!
//! Reference: `Gemma3nAudioEncoder`, `Gemma3nMultimodalEmbedder`; reference.md §5 and §9.

mod attention;
mod config;
mod encoder;
mod feed_forward;
mod light_convolution;
mod subsampling;
mod tower;
mod weights;

pub use config::AudioConfig;
pub use encoder::Encoder;
pub use weights::AudioWeights;

use std::sync::Arc;

use super::error::OpenError;
use super::tower::Precision;
use crate::ggml::Tensor;
use crate::gguf::Gguf;

/// What the mechanisms of this folder see.
type Scope<'b> = super::scope::Scope<'b, AudioConfig>;

/// Values beyond the clipping's bound become it. The published models' bound is beyond any sane
/// value: then there is nothing to do.
fn clip<'b>(s: &Scope<'b>, x: Tensor<'b>) -> Tensor<'b> {
    s.config.bound().map_or(x, |bound| x.clip(bound))
}

/// A tower over a mapped file.
pub struct AudioModel {
    config: AudioConfig,
    weights: AudioWeights,
}

impl AudioModel {
    /// Reads the config and checks every tensor of the tower and its embedder. `embedding` is the
    /// text model's width.
    ///
    /// # Errors
    /// A file without a Gemma 3n sound tower, one of another text model, a key or tensor that is
    /// missing or wrong: named with the file.
    pub fn open(
        gguf: &Arc<Gguf>,
        embedding: usize,
        precision: Precision,
    ) -> Result<Arc<Self>, OpenError> {
        let config = AudioConfig::read(gguf)?;
        let weights = AudioWeights::open(gguf, &config, embedding, precision)?;
        Ok(Arc::new(Self { config, weights }))
    }

    pub fn config(&self) -> &AudioConfig {
        &self.config
    }
}
