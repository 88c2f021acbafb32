//! Hugging Face checkpoint directories: what is in them, checked, and what our names for it are.
//!
//! - [`config`]: `config.json` → the text model's sizes and switches.
//! - [`weights`]: `*.safetensors`, single or in shards, read in pieces.
//! - [`names`]: the text model's tensors: names there, names in GGUF, shapes.
//! - [`towers`]: the same for pictures and sound, and the check of their tensors.
//! - [`tokenizer`]: `tokenizer.json`, `tokenizer.model`, `tokenizer_config.json`, chat templates.
//! - [`generation`]: `generation_config.json` → sampling defaults.
//!
//! Everything here is untrusted: sizes are checked before memory is taken, and an error names the
//! file and the key or tensor.

use std::path::{Path, PathBuf};

pub mod config;
pub mod error;
pub mod generation;
mod json;
pub mod names;
mod sentencepiece;
mod template;
pub mod tokenizer;
pub mod towers;
pub mod weights;

pub use config::TextConfig;
pub use error::Error;
pub use generation::Generation;
pub use template::Template;
pub use tokenizer::Tokenizer;
pub use towers::{AudioConfig, VisionConfig};
pub use weights::{Float, Stored, Weights};

/// A checkpoint directory, read but for the weights themselves.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    pub config: TextConfig,
    pub weights: Weights,
    pub tokenizer: Tokenizer,
    pub generation: Generation,
    /// The licence named in the model card, if there is a card that names one.
    pub license: Option<String>,
}

impl Checkpoint {
    /// Reads a directory as transformers 4.53 to 5.x writes it.
    ///
    /// # Errors
    /// What is missing, misshapen or contradictory, by file and key or tensor.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        if !dir.exists() {
            return Err(Error::NoSuchDirectory { path: dir.to_owned() });
        }
        if !dir.is_dir() {
            return Err(Error::NotADirectory { path: dir.to_owned() });
        }
        let config = TextConfig::read(dir)?;
        let weights = Weights::open(dir)?;
        let generation = Generation::read(dir)?;
        let tokenizer = Tokenizer::read(dir, &config, &generation)?;
        Ok(Self {
            dir: dir.to_owned(),
            config,
            weights,
            tokenizer,
            generation,
            license: card_license(dir)?,
        })
    }

    /// The files that were read, but for those with weights.
    pub fn small_files(&self) -> impl Iterator<Item = PathBuf> {
        const NAMES: [&str; 11] = [
            "config.json",
            "generation_config.json",
            "model.safetensors.index.json",
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer_config.json",
            "chat_template.jinja",
            "chat_template.json",
            "preprocessor_config.json",
            "processor_config.json",
            "README.md",
        ];
        NAMES.iter().map(|name| self.dir.join(name))
    }

    /// What `config.json` says of the picture tower.
    ///
    /// # Errors
    /// A mistyped or impossible value, by key.
    pub fn vision(&self) -> Result<VisionConfig, Error> {
        VisionConfig::read(&self.dir)
    }

    /// What `config.json` says of the sound tower.
    ///
    /// # Errors
    /// A mistyped or impossible value, by key.
    pub fn audio(&self) -> Result<AudioConfig, Error> {
        AudioConfig::read(&self.dir, &self.config)
    }

    /// The directory's own name, which is how people call the model.
    pub fn name(&self) -> String {
        let absolute = self.dir.canonicalize().unwrap_or_else(|_| self.dir.clone());
        absolute.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }
}

/// `license: …` of the front matter (between two `---` lines) of `README.md`.
fn card_license(dir: &Path) -> Result<Option<String>, Error> {
    let Some(card) = json::read_text_if_present(&dir.join("README.md"), json::TEMPLATE_LIMIT)?
    else {
        return Ok(None);
    };
    let mut lines = card.lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Ok(None);
    }
    let license = lines
        .take_while(|line| line.trim_end() != "---")
        .find_map(|line| line.strip_prefix("license:"))
        .map(|value| value.trim().trim_matches(['"', '\'']).to_owned());
    Ok(license.filter(|license| !license.is_empty()))
}
