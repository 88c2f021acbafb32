//! What a file of towers says about one of them: reading and checking its keys (gguf.md §4.3).

use crate::gguf::Gguf;
use crate::model::error::{Fault, OpenError};

/// The keys of one tower.
pub struct Keys<'a> {
    gguf: &'a Gguf,
}

impl<'a> Keys<'a> {
    /// Those of `tower` (vision, audio), whose projector is called `projector`.
    ///
    /// # Errors
    /// Another architecture, a file without this tower, or with one of another model.
    pub fn of(gguf: &'a Gguf, tower: &'static str, projector: &str) -> Result<Self, OpenError> {
        let keys = Self { gguf };
        let found = gguf.metadata().str("general.architecture")?.unwrap_or("missing");
        if found != "clip" {
            return Err(keys.fault(Fault::Towers { found: found.to_owned() }));
        }
        let key = projector_key(tower);
        match gguf.metadata().str(&key)? {
            Some(found) if found == projector => Ok(keys),
            Some(other) => Err(keys.bad(&key, format!("expected {projector}, found {other}"))),
            None => Err(keys.fault(Fault::NoTower(tower))),
        }
    }

    fn fault(&self, fault: Fault) -> OpenError {
        OpenError::Model { file: self.gguf.path().to_path_buf(), fault }
    }

    /// A key whose value will not do.
    pub fn bad(&self, key: &str, problem: String) -> OpenError {
        self.fault(Fault::Key { key: key.to_owned(), problem })
    }

    /// A whole number from `least` to `most`.
    pub fn number(
        &self,
        key: &str,
        least: u32,
        default: u32,
        most: u32,
    ) -> Result<usize, OpenError> {
        let value = self.gguf.metadata().u32(key)?.unwrap_or(default);
        match (least..=most).contains(&value) {
            true => Ok(value as usize),
            false => Err(self.bad(key, format!("expected {least} to {most}, found {value}"))),
        }
    }

    /// A finite number above 0.
    pub fn positive(&self, key: &str, default: f32) -> Result<f32, OpenError> {
        let value = self.gguf.metadata().f32(key)?.unwrap_or(default);
        match value > 0.0 && value.is_finite() {
            true => Ok(value),
            false => Err(self.bad(key, format!("found {value}"))),
        }
    }
}

/// Whether the file says that it has this tower.
///
/// # Errors
/// A key of another type.
pub fn present(gguf: &Gguf, tower: &str) -> Result<bool, OpenError> {
    Ok(gguf.metadata().str(&projector_key(tower))?.is_some())
}

fn projector_key(tower: &str) -> String {
    format!("clip.{tower}.projector_type")
}
