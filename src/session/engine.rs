//! What conversations share: the file, the model, the tokenizer, the chat template.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Error, SamplerOptions};

/// Where a model's bytes are.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// A GGUF file, or the first part of a split one.
    File(PathBuf),
    /// A GGUF inside the program (64-byte aligned), and the name for messages.
    Static {
        /// What messages call it.
        name: &'static str,
        /// The whole file.
        bytes: &'static [u8],
    },
}

/// How to open a model.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The model.
    pub model: ModelSource,
    /// A chat template (Jinja) to be used instead of the file's own.
    pub template: Option<PathBuf>,
    /// False reads the file into memory (`--no-mmap`).
    pub mmap: bool,
    /// Keep the weights in memory, the per-layer table excepted (`--mlock`).
    pub mlock: bool,
}

/// Where the time of opening went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OpenTimings {
    /// Mapping and parsing of the header.
    pub file: Duration,
    /// Checks of the weights.
    pub model: Duration,
    /// Vocabulary and tokenizer.
    pub tokenizer: Duration,
    /// Chat template.
    pub template: Duration,
}

impl OpenTimings {
    /// The sum.
    pub fn total(&self) -> Duration {
        self.file + self.model + self.tokenizer + self.template
    }
}

/// An opened model, shared by conversations.
pub struct Engine {}

impl Engine {
    /// Opens a model: file, weights, tokenizer, template, defaults.
    ///
    /// # Errors
    /// A file that cannot be read or is not a sound Gemma 3n text model; a vocabulary without
    /// needed tokens; a template that does not parse.
    pub fn open(_options: &EngineOptions) -> Result<Arc<Self>, Error> {
        unimplemented!()
    }

    /// The file's path, or the built-in model's name.
    pub fn path(&self) -> &Path {
        unimplemented!()
    }

    /// `general.name`, else the file's name.
    pub fn name(&self) -> &str {
        unimplemented!()
    }

    /// SHA-256 of the header and both ends of every tensor, hexadecimal. Made when first
    /// asked for.
    pub fn fingerprint(&self) -> &str {
        unimplemented!()
    }

    /// Positions the model was trained for.
    pub fn trained_context(&self) -> usize {
        unimplemented!()
    }

    /// Sampling defaults: the file's `general.sampling.*`, else Gemma's own (temperature 1,
    /// top-k 64, top-p 0.95). The seed is 0: a caller chooses one.
    pub fn sampling_defaults(&self) -> SamplerOptions {
        unimplemented!()
    }

    /// Where the chat template comes from, in words: the file, `--template PATH`, or
    /// Gemma's own.
    pub fn template_source(&self) -> &str {
        unimplemented!()
    }

    /// Where the time of opening went.
    pub fn timings(&self) -> OpenTimings {
        unimplemented!()
    }
}
