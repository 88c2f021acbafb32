//! What can be wrong with a checkpoint directory.

use std::io;
use std::path::PathBuf;

use super::weights::Float;

/// Names the file and, inside it, the key or tensor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: no such directory", path.display())]
    NoSuchDirectory { path: PathBuf },

    #[error("{}: not a directory", path.display())]
    NotADirectory { path: PathBuf },

    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },

    #[error("{}: {len} bytes, more than the {limit} accepted for this file", path.display())]
    TooLarge { path: PathBuf, len: u64, limit: u64 },

    #[error("{}: not UTF-8 text", path.display())]
    NotText { path: PathBuf },

    #[error("{}: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },

    #[error("{}: key {key}: missing", path.display())]
    MissingKey { path: PathBuf, key: String },

    #[error("{}: key {key}: expected {expected}, found {found}", path.display())]
    Key { path: PathBuf, key: String, expected: String, found: String },

    #[error(
        "{}: no weights: neither model.safetensors nor model.safetensors.index.json{}",
        dir.display(),
        if *has_pickle { " (pytorch_model.bin is not read)" } else { "" }
    )]
    NoWeights { dir: PathBuf, has_pickle: bool },

    #[error("{}: {what}", path.display())]
    Safetensors { path: PathBuf, what: String },

    #[error("{}: tensor {tensor}: {what}", path.display())]
    Tensor { path: PathBuf, tensor: String, what: String },

    #[error("{}: tensor {tensor} is also in {}", path.display(), other.display())]
    DuplicateTensor { path: PathBuf, tensor: String, other: PathBuf },

    #[error("{}: names the file {file}, which is not there", path.display())]
    MissingShard { path: PathBuf, file: String },

    #[error("{}: tensor {tensor}: listed in {}, but not in the file", path.display(), index.display())]
    NotInShard { path: PathBuf, index: PathBuf, tensor: String },

    #[error("{}: neither tokenizer.json nor tokenizer.model", dir.display())]
    NoTokenizer { dir: PathBuf },

    #[error("{}: {what}", path.display())]
    Tokenizer { path: PathBuf, what: String },

    #[error("{}: tensor {tensor}: missing", dir.display())]
    MissingTensor { dir: PathBuf, tensor: String },

    #[error("{}: tensor {tensor}: expected {expected}, found {found}", path.display())]
    Shape { path: PathBuf, tensor: String, expected: String, found: String },

    #[error(
        "{}: tensor {tensor}: type {found} is not read (only {}, {} and {} are)",
        path.display(), Float::F32, Float::F16, Float::BF16
    )]
    ElementType { path: PathBuf, tensor: String, found: String },

    #[error(
        "{}: tensor {tensor}: no part of Gemma 3n's {model}{}",
        path.display(),
        match others { 0 => String::new(), n => format!(" ({n} more are none)") }
    )]
    UnknownTensor { path: PathBuf, tensor: String, model: &'static str, others: usize },

    #[error("{}: tensor {tensor}: its size {size} is no multiple of {of}", path.display())]
    Multiple { path: PathBuf, tensor: String, size: u64, of: u64 },

    #[error("{}: tensor {tensor}: the same weight as {other}", path.display())]
    SameTensor { path: PathBuf, tensor: String, other: String },
}
