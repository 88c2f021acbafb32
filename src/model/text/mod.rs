//! The language model: one file a mechanism, [`layer`] reads them in order.
//!
//! - [`config`](super::config), [`weights`], [`table`]: what a file must have.
//! - [`altup`], [`laurel`], [`attention`], [`ffn`], [`per_layer`], [`head`]: the mechanisms.
//! - [`graph`]: the whole, for one class of shapes. [`cache`]: keys and values.
//! - [`decoder`]: ids in, logits out.

mod activation;
mod altup;
mod attention;
mod cache;
mod decoder;
mod ffn;
mod graph;
mod head;
mod laurel;
mod layer;
mod per_layer;
mod rope;
mod table;
mod weights;

use std::sync::Arc;

pub use crate::model::scope::{Kernels, TapValue};
pub use cache::CacheType;
pub use decoder::{Decoder, DecoderOptions, Logits, Tokens};
pub use weights::TextWeights;

use super::config::TextConfig;
use super::error::OpenError;
use super::slice::{Cut, Slice};
use crate::gguf::Gguf;

/// What the mechanisms of this folder see.
type Scope<'b> = crate::model::scope::Scope<'b, TextConfig>;

/// A text model over a mapped file, or one inside it; shared by decoders.
pub struct TextModel {
    cut: Cut,
    weights: TextWeights,
}

impl TextModel {
    /// Reads the config and checks every tensor. Weights stay in the mapping; copied are those
    /// whose bytes are not aligned, and small ones that are not f32.
    ///
    /// # Errors
    /// Another architecture, a key or tensor that is missing or wrong: named with the file.
    pub fn open(gguf: &Arc<Gguf>) -> Result<Arc<Self>, OpenError> {
        Self::open_slice(gguf, None)
    }

    /// The same for a smaller model inside the file's, which uses the bigger one's mapping.
    ///
    /// # Errors
    /// Those of [`TextModel::open`]; the slice does not fit the model.
    pub fn open_slice(gguf: &Arc<Gguf>, slice: Option<&Slice>) -> Result<Arc<Self>, OpenError> {
        let config = TextConfig::read(gguf)?;
        let cut = match slice {
            None => Cut::nothing(config),
            Some(slice) => {
                let fault = |fault| {
                    let (file, slice) = (gguf.path().to_path_buf(), slice.to_string());
                    OpenError::Slice { file, slice, fault: Box::new(fault) }
                };
                let cut = slice.cut(&config).map_err(fault)?;
                cut.check_blocks(gguf).map_err(fault)?;
                cut
            }
        };
        let weights = TextWeights::open(gguf, &cut)?;
        Ok(Arc::new(Self { cut, weights }))
    }

    pub fn config(&self) -> &TextConfig {
        &self.cut.config
    }

    /// Where in the file the model lies.
    pub fn cut(&self) -> &Cut {
        &self.cut
    }

    /// What the slice is called ([`Cut::label`]), if it is one that was made when opening.
    pub fn slice(&self) -> Option<String> {
        self.cut.cuts().then(|| self.cut.label())
    }

    /// Bytes that decoding one token reads from the file.
    pub fn bytes_per_token(&self) -> usize {
        self.weights.bytes_per_token(self.config())
    }

    pub fn weights(&self) -> &TextWeights {
        &self.weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::LayerKind::{Full, Sliding};

    /// Small sizes for the tests of this folder.
    pub fn config() -> TextConfig {
        TextConfig {
            context_length: 64,
            embedding: 16,
            layers: 4,
            heads: 4,
            kv_heads: 2,
            head_dim: 4,
            per_layer: 4,
            streams: 3,
            active: 0,
            window: 8,
            eps: 1e-6,
            softcap: Some(30.0),
            kinds: vec![Sliding, Full, Sliding, Full],
            shared: 2,
            rope_full: 1e6,
            rope_sliding: 1e4,
            ffn: vec![16; 4],
            sparsity: vec![None; 4],
            neuron_major: false,
            laurel: 4,
            vocabulary: 32,
            per_layer_vocabulary: 32,
        }
    }

    #[test]
    fn shared_layers_read_the_last_owner_of_their_kind() {
        let mut c = config();
        assert_eq!([0, 1, 2, 3].map(|il| c.kv_source(il)), [0, 1, 0, 1]);
        c.shared = 1;
        assert_eq!(c.kv_source(3), 1);
        assert_eq!(c.last_owner(), 2);
    }
}
