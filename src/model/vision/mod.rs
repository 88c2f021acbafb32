//! The vision tower: MobileNetV5 over a picture's pixels, whose output the embedder turns
//! into soft tokens. One file a mechanism, [`tower`] reads them in order.
//!
//! Maps hold a pixel's channels together, pixels row by row: `[C, width·height]`. So 1 × 1
//! convolutions are products, and norms run over contiguous values.
//!
//! Reference: timm's `MobileNetV5Encoder` as `mobilenetv5_300m_enc`, `Gemma3nMultimodalEmbedder`;
//! reference.md §5 and §7.

mod attention;
mod config;
mod convolution;
mod edge_residual;
mod encoder;
mod fusion;
mod inverted_residual;
mod norm;
mod tower;
mod weights;

pub use config::VisionConfig;
pub use encoder::Encoder;
pub use weights::VisionWeights;

use std::sync::Arc;

use super::error::OpenError;
use super::tower::Precision;
use crate::ggml::Tensor;
use crate::gguf::Gguf;

/// What the mechanisms of this folder see.
type Scope<'b> = super::scope::Scope<'b, VisionConfig>;

/// A map of pixels in a graph: `[C, width·height]`.
#[derive(Clone, Copy)]
struct Map<'b> {
    x: Tensor<'b>,
    width: usize,
    height: usize,
}

/// A tower over a mapped file.
pub struct VisionModel {
    config: VisionConfig,
    weights: VisionWeights,
}

impl VisionModel {
    /// Reads the config and checks every tensor of the tower and its embedder. `embedding` is the
    /// text model's width.
    ///
    /// # Errors
    /// A file without a Gemma 3n vision tower, one of another text model, a key or tensor that is
    /// missing or wrong: named with the file.
    pub fn open(
        gguf: &Arc<Gguf>,
        embedding: usize,
        precision: Precision,
    ) -> Result<Arc<Self>, OpenError> {
        let config = VisionConfig::read(gguf)?;
        let weights = VisionWeights::open(gguf, &config, embedding, precision)?;
        Ok(Arc::new(Self { config, weights }))
    }

    pub fn config(&self) -> &VisionConfig {
        &self.config
    }
}
