//! What a file of towers says about its vision tower. The blocks themselves are read off the
//! tensors ([`super::weights`]). Keys: gguf.md §4.3; defaults are the real model's constants.

use crate::gguf::Gguf;
use crate::model::error::OpenError;
use crate::model::tower::keys::{self, Keys};

/// Constants of the tower and its embedder.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Pixels of a picture's side.
    pub image_size: usize,
    /// Soft tokens of a picture: the fused map is pooled to `grid × grid`.
    pub soft_tokens: usize,
    /// The square root of `soft_tokens`.
    pub grid: usize,
    /// The first id that the embedder's table holds.
    pub vocab_offset: usize,
    /// eps of the embedder's norms; the tower's own is always 1e-6.
    pub eps: f32,
}

/// eps of every norm inside the tower.
pub const TOWER_EPS: f32 = 1e-6;

/// No picture's side is longer: the tower was trained on 768.
const MOST_PIXELS: u32 = 4096;

impl VisionConfig {
    /// Whether the file says that it has a vision tower.
    ///
    /// # Errors
    /// A key of another type.
    pub fn present(gguf: &Gguf) -> Result<bool, OpenError> {
        keys::present(gguf, "vision")
    }

    /// Reads and checks the keys.
    ///
    /// # Errors
    /// Another architecture, a file without this tower, or a key that is wrong.
    pub fn read(gguf: &Gguf) -> Result<Self, OpenError> {
        let keys = Keys::of(gguf, "vision", "gemma3nv")?;
        let soft_tokens = keys.number("gemma3n.cli.vision.soft_tokens", 1, 256, 1 << 16)?;
        let grid = soft_tokens.isqrt();
        if grid * grid != soft_tokens {
            let problem = format!("{soft_tokens} is not a square number");
            return Err(keys.bad("gemma3n.cli.vision.soft_tokens", problem));
        }
        Ok(Self {
            image_size: keys.number("clip.vision.image_size", 1, 768, MOST_PIXELS)?,
            soft_tokens,
            grid,
            vocab_offset: keys.number("gemma3n.cli.vision.vocab_offset", 1, 262_144, u32::MAX)?,
            eps: keys.positive("gemma3n.cli.vision.rms_norm_eps", 1e-6)?,
        })
    }
}
