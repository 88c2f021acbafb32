//! `generation_config.json` → sampling defaults and ends of generation.

use std::path::Path;

use super::error::Error;
use super::json::{CONFIG_LIMIT, Document, Section};

/// What the checkpoint recommends; all of it optional.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generation {
    pub top_k: Option<u32>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub temperature: Option<f32>,
    pub repetition_penalty: Option<f32>,
    /// Ids that end generation.
    pub eos: Vec<u32>,
}

impl Generation {
    /// # Errors
    /// A mistyped or impossible value, by key.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("generation_config.json");
        let Some(document) = Document::read_if_present(&path, CONFIG_LIMIT)? else {
            return Ok(Self::default());
        };
        let root = document.root();
        Ok(Self {
            top_k: root.count("top_k", 0, i32::MAX as u32)?,
            top_p: within(&root, "top_p", 1.0)?,
            min_p: within(&root, "min_p", 1.0)?,
            temperature: within(&root, "temperature", f64::from(f32::MAX))?,
            repetition_penalty: within(&root, "repetition_penalty", f64::from(f32::MAX))?,
            eos: root.ids("eos_token_id")?,
        })
    }
}

fn within(section: &Section, key: &str, max: f64) -> Result<Option<f32>, Error> {
    match section.f64(key)? {
        None => Ok(None),
        Some(value) if (0.0..=max).contains(&value) => Ok(Some(value as f32)),
        Some(value) => Err(section.unexpected(key, &format!("a number from 0 to {max}"), value)),
    }
}
