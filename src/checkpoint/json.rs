//! JSON and text files of a checkpoint: bounded reading, and typed access that names file and key.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::error::Error;

/// `config.json`, `generation_config.json`, `tokenizer_config.json`: some 60 KB in published files.
pub const CONFIG_LIMIT: u64 = 16 << 20;
/// Chat templates and model cards.
pub const TEMPLATE_LIMIT: u64 = 4 << 20;
/// `model.safetensors.index.json`: some 150 KB.
pub const INDEX_LIMIT: u64 = 64 << 20;
/// `tokenizer.json`: 33 MB; `tokenizer.model`: 4.7 MB.
pub const TOKENIZER_LIMIT: u64 = 256 << 20;

/// Reads a whole file of at most `limit` bytes.
pub fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    if len > limit {
        return Err(Error::TooLarge { path: path.to_owned(), len, limit });
    }
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes).map_err(io)? as u64;
    if read > limit {
        return Err(Error::TooLarge { path: path.to_owned(), len: read, limit });
    }
    Ok(bytes)
}

/// Reads a whole UTF-8 file of at most `limit` bytes; `None` where there is none.
pub fn read_text_if_present(path: &Path, limit: u64) -> Result<Option<String>, Error> {
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = read_bytes(path, limit)?;
    let text = String::from_utf8(bytes).map_err(|_| Error::NotText { path: path.to_owned() })?;
    Ok(Some(text))
}

/// A JSON file whose top level is an object.
#[derive(Debug)]
pub struct Document {
    path: PathBuf,
    root: Map<String, Value>,
}

impl Document {
    pub fn read(path: &Path, limit: u64) -> Result<Self, Error> {
        let bytes = read_bytes(path, limit)?;
        let root = serde_json::from_slice(&bytes)
            .map_err(|source| Error::Json { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), root })
    }

    pub fn read_if_present(path: &Path, limit: u64) -> Result<Option<Self>, Error> {
        if path.is_file() { Self::read(path, limit).map(Some) } else { Ok(None) }
    }

    pub fn root(&self) -> Section<'_> {
        Section { path: &self.path, prefix: String::new(), map: &self.root }
    }
}

/// An object in a [`Document`]. A `null` counts as absent, as transformers writes it.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    path: &'a Path,
    prefix: String,
    map: &'a Map<String, Value>,
}

static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

impl<'a> Section<'a> {
    /// An inner object that isn't there: every key of it is absent.
    pub fn empty(&self, key: &str) -> Self {
        Self { path: self.path, prefix: format!("{}{key}.", self.prefix), map: &EMPTY }
    }

    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.map.iter()
    }

    /// The error of a key that holds something else than `expected`.
    pub fn unexpected(&self, key: &str, expected: &str, found: impl ToString) -> Error {
        Error::Key {
            path: self.path.to_owned(),
            key: format!("{}{key}", self.prefix),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }

    pub fn missing(&self, key: &str) -> Error {
        Error::MissingKey { path: self.path.to_owned(), key: format!("{}{key}", self.prefix) }
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(self.unexpected(key, expected, shown(value))),
        }
    }

    pub fn section(&self, key: &str) -> Result<Option<Self>, Error> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Self { path: self.path, prefix: format!("{}{key}.", self.prefix), map }))
    }

    pub fn bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub fn f64(&self, key: &str) -> Result<Option<f64>, Error> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub fn str(&self, key: &str) -> Result<Option<&'a str>, Error> {
        self.typed(key, "a string", Value::as_str)
    }

    pub fn array(&self, key: &str) -> Result<Option<&'a Vec<Value>>, Error> {
        self.typed(key, "a list", Value::as_array)
    }

    /// A whole number within `min..=max`.
    pub fn count(&self, key: &str, min: u32, max: u32) -> Result<Option<u32>, Error> {
        self.typed(key, &format!("a whole number from {min} to {max}"), |value| {
            count(value, min, max)
        })
    }

    /// Like [`Self::count`], but it must be there.
    pub fn required_count(&self, key: &str, min: u32, max: u32) -> Result<u32, Error> {
        self.count(key, min, max)?.ok_or_else(|| self.missing(key))
    }

    /// One id or a list of ids; empty where there is none.
    pub fn ids(&self, key: &str) -> Result<Vec<u32>, Error> {
        let ids = self.typed(key, "a token id or a list of them", |value| match value {
            Value::Array(values) => values.iter().map(|v| count(v, 0, u32::MAX)).collect(),
            single => Some(vec![count(single, 0, u32::MAX)?]),
        })?;
        Ok(ids.unwrap_or_default())
    }
}

/// A whole number within `min..=max`.
pub fn count(value: &Value, min: u32, max: u32) -> Option<u32> {
    let number = u32::try_from(value.as_u64()?).ok()?;
    (min..=max).contains(&number).then_some(number)
}

/// A value as an error shows it: scalars as they are, the rest by kind.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Array(values) => format!("a list of {}", values.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) if text.len() > 60 => "a long string".to_owned(),
        scalar => scalar.to_string(),
    }
}
