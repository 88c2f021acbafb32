//! What a file of towers says about its vision tower. The blocks themselves are read off the
//! tensors ([`super::weights`]). Keys: gguf.md §4.3; defaults are the real model's constants.

use crate::gguf::Gguf;
use crate::model::error::{Fault, OpenError};

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
        Ok(gguf.metadata().str("clip.vision.projector_type")?.is_some())
    }

    /// Reads and checks the keys.
    ///
    /// # Errors
    /// Another architecture, a file without this tower, or a key that is wrong.
    pub fn read(gguf: &Gguf) -> Result<Self, OpenError> {
        let r = Reader { gguf };
        let metadata = gguf.metadata();
        let found = metadata.str("general.architecture")?.unwrap_or("missing");
        if found != "clip" {
            return Err(r.fault(Fault::Towers { found: found.to_owned() }));
        }
        match metadata.str("clip.vision.projector_type")? {
            Some("gemma3nv") => {}
            Some(other) => {
                let problem = format!("expected gemma3nv, found {other}");
                return Err(r.bad("clip.vision.projector_type", problem));
            }
            None => return Err(r.fault(Fault::NoTower("vision"))),
        }
        let soft_tokens = r.number("gemma3n.cli.vision.soft_tokens", 256, 1 << 16)?;
        let grid = soft_tokens.isqrt();
        if grid * grid != soft_tokens {
            let problem = format!("{soft_tokens} is not a square number");
            return Err(r.bad("gemma3n.cli.vision.soft_tokens", problem));
        }
        let eps = metadata.f32("gemma3n.cli.vision.rms_norm_eps")?.unwrap_or(1e-6);
        if !(eps > 0.0 && eps.is_finite()) {
            return Err(r.bad("gemma3n.cli.vision.rms_norm_eps", format!("found {eps}")));
        }
        Ok(Self {
            image_size: r.number("clip.vision.image_size", 768, MOST_PIXELS)?,
            soft_tokens,
            grid,
            vocab_offset: r.number("gemma3n.cli.vision.vocab_offset", 262_144, u32::MAX)?,
            eps,
        })
    }
}

struct Reader<'a> {
    gguf: &'a Gguf,
}

impl Reader<'_> {
    fn fault(&self, fault: Fault) -> OpenError {
        OpenError::Model { file: self.gguf.path().to_path_buf(), fault }
    }

    fn bad(&self, key: &str, problem: String) -> OpenError {
        self.fault(Fault::Key { key: key.to_owned(), problem })
    }

    /// A number from 1 on.
    fn number(&self, key: &str, default: u32, most: u32) -> Result<usize, OpenError> {
        let value = self.gguf.metadata().u32(key)?.unwrap_or(default);
        match (1..=most).contains(&value) {
            true => Ok(value as usize),
            false => Err(self.bad(key, format!("expected 1 to {most}, found {value}"))),
        }
    }
}
